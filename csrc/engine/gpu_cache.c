/* Files in the user's cache directory: the chosen family, pipelines. */
#define _POSIX_C_SOURCE 200809L
#include "gpu_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PATH_MOST = 1024,
    HEAD_MOST = 256,
    FAMILY_MOST = 16,
    PIPELINES_MOST = 64 << 20
};

/* FNV-1a, 64 bits: tells versions and torn files apart, not attackers. */
static uint64_t
hash(uint64_t h, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < bytes; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001B3);
    return h;
}

static uint64_t
hash_shaders(void)
{
    uint64_t h = UINT64_C(0xCBF29CE484222325);
    for (int i = 0; i < ND_GPU_SHADER_COUNT; i++) {
        const struct nd_gpu_signature *s =
            nd_gpu_signature((enum nd_gpu_shader)i);
        h = hash(h, s->code, s->code_bytes);
    }
    return h;
}

static void
hex(const uint8_t uuid[VK_UUID_SIZE], char out[2 * VK_UUID_SIZE + 1])
{
    for (size_t i = 0; i < VK_UUID_SIZE; i++)
        snprintf(out + 2 * i, 3, "%02x", uuid[i]);
}

/* <directory>/vulkan-<device>.<suffix>; false if files are switched off. */
static bool
make_path(const struct nd_gpu *gpu, const char *suffix, char path[PATH_MOST])
{
    const char *own = getenv("NETDIFFUSION_CACHE");
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char uuid[2 * VK_UUID_SIZE + 1];
    int n;
    hex(gpu->device_uuid, uuid);
    if (own != NULL && strcmp(own, "0") == 0)
        return false;
    if (own != NULL && own[0] != '\0')
        n = snprintf(path, PATH_MOST, "%s/vulkan-%s.%s", own, uuid, suffix);
    else if (xdg != NULL && xdg[0] == '/')
        n = snprintf(path, PATH_MOST, "%s/netdiffusion/vulkan-%s.%s", xdg,
                     uuid, suffix);
    else if (home != NULL && home[0] == '/')
        n = snprintf(path, PATH_MOST, "%s/.cache/netdiffusion/vulkan-%s.%s",
                     home, uuid, suffix);
    else
        return false;
    return n > 0 && n < PATH_MOST;
}

/* What a file of this device, driver and version of the kernels opens with. */
static size_t
make_head(const struct nd_gpu *gpu, char head[HEAD_MOST])
{
    char driver[2 * VK_UUID_SIZE + 1];
    hex(gpu->driver_uuid, driver);
    return (size_t)snprintf(
        head, HEAD_MOST,
        "netdiffusion 1\ndriver %s %u\nsubgroup %u\nkernels %016llx\n", driver,
        gpu->driver_version, gpu->info.subgroup,
        (unsigned long long)hash_shaders());
}

/* The file's bytes after its head; NULL if it is missing, old or torn. */
static uint8_t *
read_body(const struct nd_gpu *gpu, const char *suffix, size_t most,
          size_t *bytes)
{
    char path[PATH_MOST], head[HEAD_MOST], found[HEAD_MOST];
    size_t length = make_head(gpu, head);
    uint8_t *body = NULL;
    uint64_t sum;
    struct stat about;
    if (!make_path(gpu, suffix, path))
        return NULL;
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    if (fstat(fileno(file), &about) != 0 ||
        about.st_size < (off_t)(length + sizeof sum) ||
        fread(found, 1, length, file) != length ||
        memcmp(found, head, length) != 0 ||
        fread(&sum, sizeof sum, 1, file) != 1)
        goto done;
    *bytes = (size_t)about.st_size - length - sizeof sum;
    if (*bytes > most || (body = malloc(*bytes + 1)) == NULL)
        goto done;
    if (fread(body, 1, *bytes, file) != *bytes ||
        hash(0, body, *bytes) != sum) {
        free(body);
        body = NULL;
    }
done:
    fclose(file);
    return body;
}

static bool
make_directories(const char *path)
{
    char part[PATH_MOST];
    for (size_t i = 1; path[i] != '\0'; i++)
        if (path[i] == '/') {
            memcpy(part, path, i);
            part[i] = '\0';
            if (mkdir(part, 0700) != 0 && errno != EEXIST)
                return false;
        }
    return true;
}

/* Whole or not at all; a cache that cannot be written is no error. */
static void
write_body(const struct nd_gpu *gpu, const char *suffix, const void *body,
           size_t bytes)
{
    char path[PATH_MOST], draft[PATH_MOST + 32], head[HEAD_MOST];
    size_t length = make_head(gpu, head);
    uint64_t sum = hash(0, body, bytes);
    if (!make_path(gpu, suffix, path) || !make_directories(path))
        return;
    snprintf(draft, sizeof draft, "%s.%ld", path, (long)getpid());
    int descriptor = open(draft, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    FILE *file = descriptor < 0 ? NULL : fdopen(descriptor, "wb");
    if (file == NULL) {
        if (descriptor >= 0)
            close(descriptor);
        return;
    }
    bool good = fwrite(head, 1, length, file) == length &&
                fwrite(&sum, sizeof sum, 1, file) == 1 &&
                fwrite(body, 1, bytes, file) == bytes;
    if (fclose(file) != 0 || !good || rename(draft, path) != 0)
        unlink(draft);
}

const struct nd_gpu_family *
nd_gpu_cached_family(const struct nd_gpu *gpu)
{
    size_t bytes;
    uint8_t *name = read_body(gpu, "family", FAMILY_MOST, &bytes);
    const struct nd_gpu_family *family = NULL;
    if (name != NULL) {
        name[bytes] = '\0';
        family = nd_gpu_find_family((const char *)name);
    }
    free(name);
    return family;
}

void
nd_gpu_cache_family(const struct nd_gpu *gpu,
                    const struct nd_gpu_family *family)
{
    write_body(gpu, "family", family->name, strlen(family->name));
}

void
nd_gpu_load_pipelines(struct nd_gpu *gpu)
{
    VkPipelineCacheCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    size_t bytes = 0;
    uint8_t *data = read_body(gpu, "pipelines", PIPELINES_MOST, &bytes);
    info.pInitialData = data;
    info.initialDataSize = data == NULL ? 0 : bytes;
    /* Without a cache pipelines are only slower to make. */
    if (gpu->root.vk.CreatePipelineCache(gpu->device, &info, NULL,
                                         &gpu->cache) != VK_SUCCESS)
        gpu->cache = VK_NULL_HANDLE;
    gpu->cache_bytes = data == NULL ? 0 : bytes;
    free(data);
}

void
nd_gpu_save_pipelines(struct nd_gpu *gpu)
{
    struct nd_vk *vk = &gpu->root.vk;
    size_t bytes = 0;
    if (gpu->cache == VK_NULL_HANDLE)
        return;
    if (vk->GetPipelineCacheData(gpu->device, gpu->cache, &bytes, NULL) ==
            VK_SUCCESS &&
        bytes != gpu->cache_bytes && bytes <= PIPELINES_MOST) {
        void *data = malloc(bytes);
        if (data != NULL && vk->GetPipelineCacheData(gpu->device, gpu->cache,
                                                     &bytes,
                                                     data) == VK_SUCCESS)
            write_body(gpu, "pipelines", data, bytes);
        free(data);
    }
    vk->DestroyPipelineCache(gpu->device, gpu->cache, NULL);
    gpu->cache = VK_NULL_HANDLE;
}
