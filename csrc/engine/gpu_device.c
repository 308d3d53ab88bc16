#include "gpu_internal.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INSTALL                                                               \
    "install a driver (Debian, Ubuntu: apt-get install libvulkan1 "           \
    "mesa-vulkan-drivers) or use device=\"cpu\""
#define LAYER "VK_LAYER_KHRONOS_validation"

enum { MAX_DEVICES = 32, MAX_LAYERS = 128, MAX_FAMILIES = 32 };

enum nd_status
nd_gpu_fail(struct nd_error *err, VkResult result, const char *call)
{
    int name = (int)strcspn(call, "(");
    switch (result) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
        return nd_fail(err, ND_NO_MEMORY, "Vulkan: %.*s: out of host memory",
                       name, call);
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
    case VK_ERROR_OUT_OF_POOL_MEMORY:
    case VK_ERROR_TOO_MANY_OBJECTS:
        return nd_fail(err, ND_NO_MEMORY,
                       "Vulkan: %.*s: the device is out of memory; sample "
                       "fewer flows at once or use device=\"cpu\"",
                       name, call);
    case VK_ERROR_DEVICE_LOST:
        return nd_fail(err, ND_LOST,
                       "Vulkan: %.*s: the device was lost (reset or hung); "
                       "try again, with fewer flows at once, or use "
                       "device=\"cpu\"",
                       name, call);
    case VK_ERROR_INCOMPATIBLE_DRIVER:
        return nd_fail(err, ND_DEVICE,
                       "Vulkan: the loader found no driver; " INSTALL);
    default:
        return nd_fail(err, ND_DEVICE, "Vulkan: %.*s failed with VkResult %d",
                       name, call, (int)result);
    }
}

enum nd_status
nd_gpu_check(const struct nd_gpu *gpu, struct nd_error *err)
{
    if (gpu->root.message[0] == '\0')
        return ND_OK;
    return nd_fail(err, ND_DEVICE, "Vulkan validation: %s", gpu->root.message);
}

/* --- loader and instance ------------------------------------------------ */

static bool
switched_on(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' && strcmp(value, "0") != 0;
}

static enum nd_status
open_loader(struct nd_gpu_instance *root, struct nd_error *err)
{
    const char *name = getenv("NETDIFFUSION_VULKAN_LOADER");
    if (name == NULL || name[0] == '\0')
        name = "libvulkan.so.1";
    root->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (root->library == NULL)
        return nd_fail(err, ND_DEVICE,
                       "the Vulkan loader %s cannot be opened; " INSTALL,
                       name);
    /* ISO C has no cast from object to function pointer; POSIX does this. */
    void *symbol = dlsym(root->library, "vkGetInstanceProcAddr");
    memcpy(&root->vk.GetInstanceProcAddr, &symbol, sizeof symbol);
    if (symbol == NULL)
        return nd_fail(err, ND_DEVICE,
                       "%s is not a Vulkan loader: it lacks "
                       "vkGetInstanceProcAddr; " INSTALL,
                       name);
#define X(fn)                                                                 \
    root->vk.fn = (PFN_vk##fn)root->vk.GetInstanceProcAddr(NULL, "vk" #fn);
    ND_VK_GLOBAL(X)
#undef X
    if (root->vk.CreateInstance == NULL ||
        root->vk.EnumerateInstanceVersion == NULL ||
        root->vk.EnumerateInstanceLayerProperties == NULL)
        return nd_fail(err, ND_DEVICE,
                       "the Vulkan loader %s is older than Vulkan 1.1; "
                       INSTALL,
                       name);
    return ND_OK;
}

static bool
has_validation_layer(const struct nd_vk *vk)
{
    VkLayerProperties *layers = calloc(MAX_LAYERS, sizeof *layers);
    uint32_t n = MAX_LAYERS;
    bool found = false;
    if (layers == NULL)
        return false;
    VkResult result = vk->EnumerateInstanceLayerProperties(&n, layers);
    if (result == VK_SUCCESS || result == VK_INCOMPLETE)
        for (uint32_t i = 0; i < n; i++)
            found = found || strcmp(layers[i].layerName, LAYER) == 0;
    free(layers);
    return found;
}

static VkBool32 VKAPI_PTR
keep_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
             VkDebugUtilsMessageTypeFlagsEXT type,
             const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    struct nd_gpu_instance *root = user;
    (void)severity;
    (void)type;
    if (root->message[0] == '\0')
        snprintf(root->message, sizeof root->message, "%s", data->pMessage);
    return VK_FALSE;
}

static void
destroy_instance(struct nd_gpu_instance *root)
{
    if (root->messenger != VK_NULL_HANDLE) {
        PFN_vkDestroyDebugUtilsMessengerEXT destroy =
            (PFN_vkDestroyDebugUtilsMessengerEXT)root->vk.GetInstanceProcAddr(
                root->instance, "vkDestroyDebugUtilsMessengerEXT");
        destroy(root->instance, root->messenger, NULL);
    }
    if (root->instance != VK_NULL_HANDLE && root->vk.DestroyInstance != NULL)
        root->vk.DestroyInstance(root->instance, NULL);
    if (root->library != NULL)
        dlclose(root->library);
    memset(root, 0, sizeof *root);
}

static enum nd_status
create_messenger(struct nd_gpu_instance *root, struct nd_error *err)
{
    VkDebugUtilsMessengerCreateInfoEXT info = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = keep_message,
        .pUserData = root,
    };
    PFN_vkCreateDebugUtilsMessengerEXT create =
        (PFN_vkCreateDebugUtilsMessengerEXT)root->vk.GetInstanceProcAddr(
            root->instance, "vkCreateDebugUtilsMessengerEXT");
    if (create == NULL)
        return nd_fail(err, ND_DEVICE, "Vulkan: " LAYER
                                       " lacks VK_EXT_debug_utils");
    VK(create(root->instance, &info, NULL, &root->messenger));
    return ND_OK;
error:
    return ND_DEVICE;
}

/* Debug builds validate wherever the layer is installed. */
static enum nd_status
choose_validation(struct nd_gpu_instance *root, struct nd_error *err)
{
    bool asked = switched_on("NETDIFFUSION_VALIDATION");
#ifdef ND_DEBUG
    root->validation = has_validation_layer(&root->vk);
#else
    root->validation = asked && has_validation_layer(&root->vk);
#endif
    if (asked && !root->validation)
        return nd_fail(err, ND_DEVICE,
                       "NETDIFFUSION_VALIDATION is set, but " LAYER " is not "
                       "installed (Debian: vulkan-validationlayers)");
    return ND_OK;
}

static enum nd_status
create_instance(struct nd_gpu_instance *root, struct nd_error *err)
{
    static const char *const layer = LAYER;
    static const char *const extensions[] = {
        VK_EXT_DEBUG_UTILS_EXTENSION_NAME,
        VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};
    static const VkValidationFeatureEnableEXT barriers =
        VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
    VkValidationFeaturesEXT features = {
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .enabledValidationFeatureCount = 1,
        .pEnabledValidationFeatures = &barriers,
    };
    if (open_loader(root, err) != ND_OK ||
        choose_validation(root, err) != ND_OK)
        goto error;
    VkApplicationInfo application = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pApplicationName = "netdiffusion",
        .apiVersion = VK_API_VERSION_1_1,
    };
    VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pNext = root->validation ? &features : NULL,
        .pApplicationInfo = &application,
        .enabledLayerCount = root->validation,
        .ppEnabledLayerNames = &layer,
        .enabledExtensionCount = root->validation ? 2 : 0,
        .ppEnabledExtensionNames = extensions,
    };
    VK(root->vk.CreateInstance(&info, NULL, &root->instance));
#define X(fn)                                                                 \
    root->vk.fn =                                                             \
        (PFN_vk##fn)root->vk.GetInstanceProcAddr(root->instance, "vk" #fn);
    ND_VK_INSTANCE(X)
#undef X
    if (root->vk.GetPhysicalDeviceProperties2 == NULL) {
        nd_fail(err, ND_DEVICE,
                "the Vulkan loader is older than Vulkan 1.1; " INSTALL);
        goto error;
    }
    if (root->validation && create_messenger(root, err) != ND_OK)
        goto error;
    return ND_OK;
error:
    destroy_instance(root);
    return nd_gpu_failed(err);
}

/* --- list of devices ---------------------------------------------------- */

const char *
nd_gpu_type_name(enum nd_gpu_type type)
{
    static const char *const names[] = {"discrete", "integrated", "virtual",
                                        "cpu", "other"};
    return names[type];
}

static enum nd_gpu_type
type_of(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return ND_GPU_DISCRETE;
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return ND_GPU_INTEGRATED;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return ND_GPU_VIRTUAL;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return ND_GPU_CPU;
    default:
        return ND_GPU_OTHER;
    }
}

struct candidate {
    VkPhysicalDevice physical;
    struct nd_gpu_info info;
    bool shuffle; /* subgroup shuffles in compute shaders */
};

static void
describe(const struct nd_vk *vk, struct candidate *c)
{
    VkPhysicalDeviceDriverProperties driver = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
    VkPhysicalDeviceSubgroupProperties subgroup = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES};
    VkPhysicalDeviceProperties2 all = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
        .pNext = &subgroup};
    VkPhysicalDeviceProperties one;
    vk->GetPhysicalDeviceProperties(c->physical, &one);
    if (one.apiVersion >= VK_API_VERSION_1_2)
        subgroup.pNext = &driver;
    vk->GetPhysicalDeviceProperties2(c->physical, &all);

    struct nd_gpu_info *info = &c->info;
    info->type = type_of(one.deviceType);
    info->api[0] = VK_API_VERSION_MAJOR(one.apiVersion);
    info->api[1] = VK_API_VERSION_MINOR(one.apiVersion);
    info->api[2] = VK_API_VERSION_PATCH(one.apiVersion);
    info->subgroup = subgroup.subgroupSize;
    snprintf(info->name, sizeof info->name, "%s", one.deviceName);
    if (driver.driverName[0] != '\0')
        snprintf(info->driver, sizeof info->driver, "%s, %s",
                 driver.driverName, driver.driverInfo);
    else
        snprintf(info->driver, sizeof info->driver, "vendor 0x%x, version %u",
                 one.vendorID, one.driverVersion);
    VkPhysicalDeviceMemoryProperties heaps;
    vk->GetPhysicalDeviceMemoryProperties(c->physical, &heaps);
    for (uint32_t i = 0; i < heaps.memoryHeapCount; i++)
        if ((heaps.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) &&
            heaps.memoryHeaps[i].size > info->memory_bytes)
            info->memory_bytes = heaps.memoryHeaps[i].size;
    c->shuffle =
        (subgroup.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) &&
        (subgroup.supportedOperations & VK_SUBGROUP_FEATURE_SHUFFLE_BIT);
}

/* Lists the usable devices of Vulkan 1.1 and later, the best first. */
static enum nd_status
list_devices(const struct nd_gpu_instance *root,
             struct candidate out[MAX_DEVICES], size_t *count,
             struct nd_error *err)
{
    VkPhysicalDevice handles[MAX_DEVICES];
    uint32_t n = MAX_DEVICES;
    *count = 0;
    VkResult result =
        root->vk.EnumeratePhysicalDevices(root->instance, &n, handles);
    if (result != VK_SUCCESS && result != VK_INCOMPLETE)
        return nd_gpu_fail(err, result, "vkEnumeratePhysicalDevices");
    for (int type = ND_GPU_DISCRETE; type <= ND_GPU_OTHER; type++)
        for (uint32_t i = 0; i < n; i++) {
            struct candidate *c = &out[*count];
            memset(c, 0, sizeof *c);
            c->physical = handles[i];
            describe(&root->vk, c);
            bool old = c->info.api[0] == 1 && c->info.api[1] < 1;
            if ((int)c->info.type == type && !old)
                (*count)++;
        }
    if (*count == 0)
        return nd_fail(err, ND_DEVICE,
                       "Vulkan: the loader is there, but no device of "
                       "Vulkan 1.1 or later; " INSTALL);
    return ND_OK;
}

enum nd_status
nd_gpu_devices(struct nd_gpu_info *info, size_t capacity, size_t *count,
               struct nd_error *err)
{
    struct nd_gpu_instance root = {0};
    struct candidate *list = calloc(MAX_DEVICES, sizeof *list);
    *count = 0;
    if (list == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for the device list");
    enum nd_status status = create_instance(&root, err);
    if (status == ND_OK)
        status = list_devices(&root, list, count, err);
    for (size_t i = 0; status == ND_OK && i < *count && i < capacity; i++)
        info[i] = list[i].info;
    destroy_instance(&root);
    free(list);
    return status;
}

/* --- physical device ---------------------------------------------------- */

static enum nd_status
choose_device(struct nd_gpu *gpu, int index, struct nd_error *err)
{
    struct candidate *list = calloc(MAX_DEVICES, sizeof *list);
    size_t n = 0;
    if (list == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for the device list");
    enum nd_status status = list_devices(&gpu->root, list, &n, err);
    if (status == ND_OK && (index < 0 || (size_t)index >= n))
        status = nd_fail(err, ND_DEVICE,
                         "there is no Vulkan device %d; this machine has "
                         "vulkan:0 to vulkan:%zu",
                         index, n - 1);
    if (status == ND_OK) {
        gpu->physical = list[index].physical;
        gpu->info = list[index].info;
        gpu->shuffle = list[index].shuffle;
    }
    free(list);
    return status;
}

static enum nd_status
choose_queue(struct nd_gpu *gpu, struct nd_error *err)
{
    VkQueueFamilyProperties families[MAX_FAMILIES];
    uint32_t n = MAX_FAMILIES;
    gpu->root.vk.GetPhysicalDeviceQueueFamilyProperties(gpu->physical, &n,
                                                        families);
    for (uint32_t i = 0; i < n; i++)
        if (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) {
            gpu->family = i;
            return ND_OK;
        }
    return nd_fail(err, ND_DEVICE, "Vulkan: %s has no compute queue",
                   gpu->info.name);
}

static void
read_limits(struct nd_gpu *gpu)
{
    struct nd_vk *vk = &gpu->root.vk;
    VkPhysicalDeviceIDProperties id = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES};
    VkPhysicalDeviceProperties2 all = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
        .pNext = &id};
    VkPhysicalDeviceFeatures features;
    vk->GetPhysicalDeviceProperties2(gpu->physical, &all);
    vk->GetPhysicalDeviceMemoryProperties(gpu->physical, &gpu->heaps);
    vk->GetPhysicalDeviceFeatures(gpu->physical, &features);
    gpu->int64 = features.shaderInt64;
    gpu->limits = all.properties.limits;
    gpu->driver_version = all.properties.driverVersion;
    memcpy(gpu->device_uuid, id.deviceUUID, VK_UUID_SIZE);
    memcpy(gpu->driver_uuid, id.driverUUID, VK_UUID_SIZE);
}

enum nd_status
nd_gpu_open(int index, struct nd_gpu **out, struct nd_error *err)
{
    struct nd_gpu *gpu = calloc(1, sizeof *gpu);
    enum nd_status status;
    *out = NULL;
    if (gpu == NULL)
        return nd_fail(err, ND_NO_MEMORY, "no memory for a Vulkan device");
    if ((status = create_instance(&gpu->root, err)) != ND_OK ||
        (status = choose_device(gpu, index, err)) != ND_OK ||
        (status = choose_queue(gpu, err)) != ND_OK) {
        nd_gpu_close(gpu);
        return status;
    }
    read_limits(gpu);
    *out = gpu;
    return ND_OK;
}

void
nd_gpu_close(struct nd_gpu *gpu)
{
    if (gpu == NULL)
        return;
    nd_gpu_stop(gpu);
    destroy_instance(&gpu->root);
    free(gpu);
}

/* --- logical device ----------------------------------------------------- */

static enum nd_status
create_device(struct nd_gpu *gpu, struct nd_error *err)
{
    struct nd_vk *vk = &gpu->root.vk;
    float priority = 1.0f;
    VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = gpu->family,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    VkPhysicalDeviceFeatures features = {.shaderInt64 = gpu->kernels->int64};
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .pEnabledFeatures = &features,
    };
    VK(vk->CreateDevice(gpu->physical, &info, NULL, &gpu->device));
#define X(fn) vk->fn = (PFN_vk##fn)vk->GetDeviceProcAddr(gpu->device, "vk" #fn);
    ND_VK_DEVICE(X)
#undef X
    vk->GetDeviceQueue(gpu->device, gpu->family, 0, &gpu->queue);
    return ND_OK;
error:
    return nd_gpu_failed(err);
}

enum nd_status
nd_gpu_start(struct nd_gpu *gpu, const struct nd_gpu_family *family,
             struct nd_error *err)
{
    enum nd_status status;
    const char *lacks = nd_gpu_lacks(gpu, family);
    if (lacks != NULL)
        return nd_fail(err, ND_UNSUPPORTED,
                       "%s lacks %s, which the kernel family %s needs",
                       gpu->info.name, lacks, family->name);
    gpu->kernels = family;
    gpu->mapped = !family->staged && gpu->info.type != ND_GPU_DISCRETE;
    if ((status = create_device(gpu, err)) != ND_OK ||
        (status = nd_gpu_submit_init(gpu, err)) != ND_OK ||
        (status = nd_gpu_memory_init(gpu, err)) != ND_OK ||
        (status = nd_gpu_pipelines_init(gpu, err)) != ND_OK ||
        (status = nd_gpu_check(gpu, err)) != ND_OK)
        nd_gpu_stop(gpu);
    return status;
}

void
nd_gpu_stop(struct nd_gpu *gpu)
{
    if (gpu->device == VK_NULL_HANDLE)
        return;
    gpu->root.vk.DeviceWaitIdle(gpu->device);
    nd_gpu_pipelines_end(gpu);
    nd_gpu_memory_end(gpu);
    nd_gpu_submit_end(gpu);
    gpu->root.vk.DestroyDevice(gpu->device, NULL);
    gpu->device = VK_NULL_HANDLE;
    /* Leaked objects are told only now, when no caller can be. */
    if (gpu->root.message[0] != '\0')
        fprintf(stderr, "netdiffusion: %s\n", gpu->root.message);
}
