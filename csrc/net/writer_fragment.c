#include "writer_fragment.h"

#include "rows.h"

enum { FRAGMENT = 44, FRAGMENT_BYTES = 8, MOST_PARTS = 8192 };

/* Of one flow: rows in the layout that is written. */
struct view {
    const struct nd_writer_flows *flows;
    size_t first, n;
};

static const int8_t *
row_at(const struct view *v, size_t i)
{
    return v->flows->rows + (v->first + i) * v->flows->layout->cells;
}

static uint32_t
field(const struct view *v, size_t i, enum nd_field_id id)
{
    int place = v->flows->layout->first_cell[id];
    return place < 0 ? 0 : nd_cells_get(row_at(v, i) + place,
                                        nd_fields[id].bits);
}

static bool
is_fragment(const struct view *v, size_t i)
{
    const struct nd_layout *layout = v->flows->layout;
    return nd_layout_row_ip(layout, row_at(v, i)) == ND_HEADER_IPV6 &&
           field(v, i, ND_FIELD_IPV6_NEXT) == FRAGMENT;
}

static bool
is_later(const struct view *v, size_t i)
{
    return is_fragment(v, i) &&
           nd_layout_row_transport(v->flows->layout, row_at(v, i)) ==
               ND_HEADER_COUNT;
}

static bool
same_sender(const struct view *v, size_t i, size_t j)
{
    const uint8_t *direction = v->flows->direction + v->first;
    return (direction[i] & 1) == (direction[j] & 1);
}

/* The sender's packet before or after, or n when there is none. */
static size_t
neighbour(const struct view *v, size_t i, bool after)
{
    size_t j = i;
    while (after ? ++j < v->n : j-- > 0)
        if (same_sender(v, i, j))
            return j;
    return v->n;
}

struct nd_fragment
nd_writer_fragment(const struct nd_writer_flows *flows, size_t flow,
                   size_t packet)
{
    size_t first = (size_t)flows->offsets[flow];
    struct view v = {flows, first, (size_t)flows->offsets[flow + 1] - first};
    struct nd_fragment f = {.offset = 0};
    size_t i = packet, after = neighbour(&v, packet, true);
    for (int parts = 0; is_later(&v, i) && parts < MOST_PARTS; parts++) {
        size_t before = neighbour(&v, i, false);
        if (before == v.n || !is_fragment(&v, before))
            break;
        i = before;
        uint32_t bytes = field(&v, i, ND_FIELD_IPV6_LENGTH);
        f.offset += bytes > FRAGMENT_BYTES ? bytes - FRAGMENT_BYTES : 0;
    }
    f.offset = (f.offset & 0xfff8) == 0 && is_later(&v, packet)
                   ? FRAGMENT_BYTES : f.offset & 0xfff8;
    f.more = after < v.n && is_later(&v, after);
    f.id = (uint32_t)(first + i + 1) * UINT32_C(2654435761);
    return f;
}
