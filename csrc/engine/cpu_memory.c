/*
 * Memory of tensors and weights: blocks in large pages, from which they are
 * cut one after the other; a block goes when its last tensor does. A step
 * goes through 15 MB of weights for every chunk: in pages of 4 KiB a
 * twentieth of its time are address translations.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, madvise */
#include "cpu.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64, PAGE_BYTES = 2 << 20, BLOCK_BYTES = 8 << 20 };

/* Smaller ones come from the heap, so that none holds on to a batch's block. */
enum { SMALL_BYTES = 64 << 10 };

struct nd_cpu_block {
    struct nd_cpu_block *next;
    void *map; /* mapped bytes, a page more than size */
    char *start;
    size_t size, used, live;
    bool kept;
};

static struct nd_cpu_block *
new_block(struct nd_cpu *cpu, bool kept, size_t bytes)
{
    struct nd_cpu_block *block = malloc(sizeof *block);
    size_t size = bytes < BLOCK_BYTES ? BLOCK_BYTES : bytes;
    if (block == NULL)
        return NULL;
    void *map = mmap(NULL, size + PAGE_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        free(block);
        return NULL;
    }
    size_t past = (uintptr_t)map % PAGE_BYTES;
    *block = (struct nd_cpu_block){.next = cpu->blocks,
                                   .map = map,
                                   .start = (char *)map + PAGE_BYTES - past,
                                   .size = size,
                                   .kept = kept};
#ifdef MADV_HUGEPAGE
    madvise(block->start, size, MADV_HUGEPAGE); /* a wish */
#endif
    cpu->blocks = block;
    return block;
}

static void *
new_small(size_t bytes)
{
    void *memory = aligned_alloc(ALIGNMENT, bytes);
    if (memory != NULL)
        memset(memory, 0, bytes);
    return memory;
}

/* A size that overflows has no memory either. */
void *
nd_cpu_memory_new(struct nd_cpu *cpu, bool kept, size_t count, size_t size,
                  struct nd_cpu_block **out)
{
    size_t bytes;
    if (!nd_mul_size(count, size, &bytes) || bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    *out = NULL;
    if (!kept && bytes < SMALL_BYTES)
        return new_small(bytes);
    struct nd_cpu_block *block = cpu->blocks;
    while (block != NULL && (block->kept != kept ||
                             bytes > block->size - block->used))
        block = block->next;
    if (block == NULL)
        block = new_block(cpu, kept, bytes);
    if (block == NULL)
        return NULL;
    void *memory = block->start + block->used;
    block->used += bytes;
    block->live++;
    *out = block;
    return memory;
}

void
nd_cpu_memory_free(struct nd_cpu *cpu, struct nd_cpu_block *block,
                   void *memory)
{
    struct nd_cpu_block **link = &cpu->blocks;
    if (block == NULL)
        free(memory);
    if (block == NULL || --block->live > 0)
        return;
    while (*link != block)
        link = &(*link)->next;
    *link = block->next;
    munmap(block->map, block->size + PAGE_BYTES);
    free(block);
}
