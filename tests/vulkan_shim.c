/*
 * A Vulkan loader in front of the real one, which makes its devices fail as
 * real ones do. What fails stands in the environment:
 *   SHIM_LOST=n      the n-th vkQueueSubmit, and all after it, lose the device
 *   SHIM_MEMORY=n    vkAllocateMemory has n bytes in all, freed ones again
 *   SHIM_SHUFFLE=0   no subgroup shuffles
 *   SHIM_INT64=0     no integers of 64 bits
 *   SHIM_WRONG=texel texel buffers start 64 bytes late: wrong results
 *   SHIM_WRONG=all   no dispatch does anything
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#define VK_NO_PROTOTYPES
#include <vulkan/vulkan.h>

enum { KEPT = 4096 };

static PFN_vkGetInstanceProcAddr instance_address;
static PFN_vkGetDeviceProcAddr device_address;
static PFN_vkQueueSubmit submit;
static PFN_vkAllocateMemory allocate;
static PFN_vkFreeMemory free_memory;
static PFN_vkCreateBufferView create_view;
static PFN_vkGetPhysicalDeviceProperties2 properties;
static PFN_vkGetPhysicalDeviceFeatures device_features;
static long submits, taken;
static struct {
    VkDeviceMemory memory;
    long bytes;
} kept[KEPT];

static const char *
fault(const char *name)
{
    const char *value = getenv(name);
    return value == NULL ? "" : value;
}

static VKAPI_ATTR VkResult VKAPI_CALL
lose(VkQueue queue, uint32_t count, const VkSubmitInfo *infos, VkFence fence)
{
    if (++submits >= atol(fault("SHIM_LOST")))
        return VK_ERROR_DEVICE_LOST;
    return submit(queue, count, infos, fence);
}

static VKAPI_ATTR VkResult VKAPI_CALL
run_out(VkDevice device, const VkMemoryAllocateInfo *info,
        const VkAllocationCallbacks *host, VkDeviceMemory *memory)
{
    long bytes = (long)info->allocationSize;
    if (taken + bytes > atol(fault("SHIM_MEMORY")))
        return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    VkResult result = allocate(device, info, host, memory);
    for (int i = 0; i < KEPT && result == VK_SUCCESS; i++)
        if (kept[i].bytes == 0) {
            kept[i].memory = *memory;
            kept[i].bytes = bytes;
            taken += bytes;
            break;
        }
    return result;
}

static VKAPI_ATTR void VKAPI_CALL
give_back(VkDevice device, VkDeviceMemory memory,
          const VkAllocationCallbacks *host)
{
    for (int i = 0; i < KEPT; i++)
        if (kept[i].bytes > 0 && kept[i].memory == memory) {
            taken -= kept[i].bytes;
            kept[i].bytes = 0;
        }
    free_memory(device, memory, host);
}

static VKAPI_ATTR VkResult VKAPI_CALL
shift(VkDevice device, const VkBufferViewCreateInfo *info,
      const VkAllocationCallbacks *host, VkBufferView *view)
{
    VkBufferViewCreateInfo late = *info;
    late.offset += 64;
    return create_view(device, &late, host, view);
}

static VKAPI_ATTR void VKAPI_CALL
do_nothing(VkCommandBuffer commands, uint32_t x, uint32_t y, uint32_t z)
{
    (void)commands, (void)x, (void)y, (void)z;
}

static VKAPI_ATTR void VKAPI_CALL
hide_shuffle(VkPhysicalDevice device, VkPhysicalDeviceProperties2 *all)
{
    properties(device, all);
    for (VkBaseOutStructure *s = all->pNext; s != NULL; s = s->pNext)
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES)
            ((VkPhysicalDeviceSubgroupProperties *)s)->supportedOperations &=
                ~(VkSubgroupFeatureFlags)VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
}

static VKAPI_ATTR void VKAPI_CALL
hide_int64(VkPhysicalDevice device, VkPhysicalDeviceFeatures *all)
{
    device_features(device, all);
    all->shaderInt64 = VK_FALSE;
}

static PFN_vkVoidFunction VKAPI_CALL
from_device(VkDevice device, const char *name)
{
    PFN_vkVoidFunction found = device_address(device, name);
    const char *wrong = fault("SHIM_WRONG");
#define TAKE(stem, real, ours, when)                                          \
    if (strcmp(name, "vk" #stem) == 0 && (when)) {                            \
        real = (PFN_vk##stem)found;                                           \
        return (PFN_vkVoidFunction)ours;                                      \
    }
    TAKE(QueueSubmit, submit, lose, *fault("SHIM_LOST"))
    TAKE(AllocateMemory, allocate, run_out, *fault("SHIM_MEMORY"))
    TAKE(FreeMemory, free_memory, give_back, *fault("SHIM_MEMORY"))
    TAKE(CreateBufferView, create_view, shift, strcmp(wrong, "texel") == 0)
    if (strcmp(name, "vkCmdDispatch") == 0 && strcmp(wrong, "all") == 0)
        return (PFN_vkVoidFunction)do_nothing;
    return found;
}

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL
vkGetInstanceProcAddr(VkInstance instance, const char *name)
{
    if (instance_address == NULL) {
        void *real = dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
        if (real == NULL)
            return NULL;
        instance_address =
            (PFN_vkGetInstanceProcAddr)dlsym(real, "vkGetInstanceProcAddr");
    }
    PFN_vkVoidFunction found = instance_address(instance, name);
    TAKE(GetPhysicalDeviceProperties2, properties, hide_shuffle,
         *fault("SHIM_SHUFFLE"))
    TAKE(GetPhysicalDeviceFeatures, device_features, hide_int64,
         *fault("SHIM_INT64"))
    if (strcmp(name, "vkGetDeviceProcAddr") == 0) {
        device_address = (PFN_vkGetDeviceProcAddr)found;
        return (PFN_vkVoidFunction)from_device;
    }
    return found;
}
