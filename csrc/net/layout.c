#include "layout.h"

#include <string.h>

const struct nd_field nd_fields[ND_FIELD_COUNT] = {
#define X(id, name, header, first, bits, role)                                \
    {name, ND_HEADER_##header, first, bits, ND_ROLE_##role},
    ND_FIELD_LIST(X)
#undef X
};

/*
 * Which fields a layout holds. Of the private fields the addresses are those
 * of 32 bits and more; the flow label, of 20, is in every layout with IPv6.
 */
#define IS(header, which) (ND_HEADER_##header == ND_HEADER_##which)
#define IS_ADDRESS(bits, role)                                                \
    (ND_ROLE_##role == ND_ROLE_PRIVATE && (bits) >= 32)

#define IN_CANONICAL(header, bits, role) (!IS_ADDRESS(bits, role))
#define IN_1088(header, bits, role)                                           \
    (!IS_ADDRESS(bits, role) && !IS(header, MOTION))
#define IN_4TUI(header, bits, role) (!IS(header, IPV6) && !IS(header, MOTION))
#define IN_46TUI(header, bits, role) (!IS(header, MOTION))

/*
 * An enumerator without a value is the one before it plus one, so a field
 * that ends at `first + width - 1` puts the next field at its own end; a
 * field that is left out has width 0.
 */
#define PLACES(X)                                                             \
    enum { ND_FIELD_LIST(X) X##_CELLS };

#define AT_CANONICAL(id, name, header, first, bits, role)                     \
    CANONICAL_##id, CANONICAL_##id##_LAST = CANONICAL_##id - 1 +              \
        (bits) * IN_CANONICAL(header, bits, role),
#define AT_1088(id, name, header, first, bits, role)                          \
    ND1088_##id,                                                              \
        ND1088_##id##_LAST = ND1088_##id - 1 +                                \
                             (bits) * IN_1088(header, bits, role),
#define AT_4TUI(id, name, header, first, bits, role)                          \
    ND4TUI_##id,                                                              \
        ND4TUI_##id##_LAST = ND4TUI_##id - 1 +                                \
                             (bits) * IN_4TUI(header, bits, role),
#define AT_46TUI(id, name, header, first, bits, role)                         \
    ND46TUI_##id,                                                             \
        ND46TUI_##id##_LAST = ND46TUI_##id - 1 +                              \
                              (bits) * IN_46TUI(header, bits, role),

PLACES(AT_CANONICAL)
PLACES(AT_1088)
PLACES(AT_4TUI)
PLACES(AT_46TUI)

_Static_assert((int)AT_CANONICAL_CELLS == (int)ND_CANONICAL_CELLS,
               "canonical");
_Static_assert((int)AT_1088_CELLS == (int)ND_ROW_CELLS, "netdiffusion-1088");
_Static_assert((int)AT_4TUI_CELLS == 1088, "nprint-4tui");
_Static_assert((int)AT_46TUI_CELLS == (int)ND_MAX_CELLS, "nprint-46tui");

const struct nd_layout nd_layouts[ND_LAYOUT_COUNT] = {
    [ND_LAYOUT_1088] = {"netdiffusion-1088",
     AT_1088_CELLS,
     {
#define X(id, name, header, first, bits, role)                                \
    IN_1088(header, bits, role) ? ND1088_##id : -1,
         ND_FIELD_LIST(X)
#undef X
     }},
    [ND_LAYOUT_4TUI] = {"nprint-4tui",
     AT_4TUI_CELLS,
     {
#define X(id, name, header, first, bits, role)                                \
    IN_4TUI(header, bits, role) ? ND4TUI_##id : -1,
         ND_FIELD_LIST(X)
#undef X
     }},
    [ND_LAYOUT_46TUI] = {"nprint-46tui",
     AT_46TUI_CELLS,
     {
#define X(id, name, header, first, bits, role)                                \
    IN_46TUI(header, bits, role) ? ND46TUI_##id : -1,
         ND_FIELD_LIST(X)
#undef X
     }},
    [ND_LAYOUT_CANONICAL] = {"netdiffusion-canonical",
     AT_CANONICAL_CELLS,
     {
#define X(id, name, header, first, bits, role)                                \
    IN_CANONICAL(header, bits, role) ? CANONICAL_##id : -1,
         ND_FIELD_LIST(X)
#undef X
     }},
};

const struct nd_layout *
nd_layout_find(const char *name)
{
    for (size_t i = 0; i < ND_LAYOUT_COUNT; i++)
        if (strcmp(nd_layouts[i].name, name) == 0)
            return &nd_layouts[i];
    return NULL;
}

static uint64_t
hash_bytes(uint64_t hash, const void *bytes, size_t n)
{
    const uint8_t *b = bytes;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ b[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static uint64_t
hash_u16(uint64_t hash, uint16_t value)
{
    uint8_t bytes[2] = {(uint8_t)(value >> 8), (uint8_t)value};
    return hash_bytes(hash, bytes, sizeof bytes);
}

uint64_t
nd_layout_hash(const struct nd_layout *layout)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < ND_FIELD_COUNT; i++) {
        if (layout->first_cell[i] < 0)
            continue;
        /* the name with its terminator, so that "ab" "c" is not "a" "bc" */
        hash = hash_bytes(hash, nd_fields[i].name,
                          strlen(nd_fields[i].name) + 1);
        hash = hash_u16(hash, (uint16_t)layout->first_cell[i]);
        hash = hash_u16(hash, nd_fields[i].bits);
    }
    return hash;
}
