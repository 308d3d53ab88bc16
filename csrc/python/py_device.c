#include "py_engine.h"

#include "../engine/cpu.h"
#include "../engine/gpu.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { GPUS_MOST = 16 };

/* A real GPU, not Vulkan on the CPU; none is no error. */
static bool
has_gpu(void)
{
    struct nd_gpu_info info[GPUS_MOST];
    size_t count = 0;
    if (nd_gpu_devices(info, GPUS_MOST, &count, NULL) != ND_OK || count == 0)
        return false;
    return info[0].type == ND_GPU_DISCRETE ||
           info[0].type == ND_GPU_INTEGRATED || info[0].type == ND_GPU_VIRTUAL;
}

static enum nd_status
open_gpu(const char *device, struct nd_backend **backend, struct nd_error *err)
{
    char *end = NULL;
    long index = 0;
    if (device[6] == ':')
        index = strtol(device + 7, &end, 10);
    if ((end != NULL && (*end != '\0' || end == device + 7)) || index < 0 ||
        index > INT_MAX)
        return nd_fail(err, ND_ARGUMENT,
                       "device \"%s\": vulkan:N has N from 0 up", device);
    return nd_gpu_backend_create((int)index, backend, err);
}

/* The CPU for a GPU that failed: said in the backend's note. */
static enum nd_status
fall_back(size_t threads, const struct nd_error *why,
          struct nd_backend **backend, struct nd_error *err)
{
    enum nd_status status = nd_cpu_backend_create(threads, NULL, backend, err);
    if (status == ND_OK)
        snprintf((*backend)->note, sizeof (*backend)->note,
                 "the CPU is used: %.480s", why->text);
    return status;
}

enum nd_status
nd_py_open_backend(const char *device, size_t threads,
                   struct nd_backend **backend, struct nd_error *err)
{
    bool automatic = strcmp(device, "auto") == 0;
    struct nd_error why = {.code = ND_OK};
    enum nd_status status = ND_OK;
    if (strncmp(device, "vulkan", 6) == 0 &&
        (device[6] == '\0' || device[6] == ':'))
        status = open_gpu(device, backend, &why);
    else if (automatic && has_gpu())
        status = nd_gpu_backend_create(0, backend, &why);
    else if (automatic || strcmp(device, "cpu") == 0)
        return nd_cpu_backend_create(threads, NULL, backend, err);
    else if (strncmp(device, "cpu:", 4) == 0)
        return nd_cpu_backend_create(threads, device + 4, backend, err);
    else
        return nd_fail(err, ND_ARGUMENT,
                       "device \"%s\": there are auto, cpu, vulkan and "
                       "vulkan:N",
                       device);
    if (status == ND_OK)
        return ND_OK;
    /* A device that is asked for by name and missing is an error. */
    if (automatic || status == ND_UNSUPPORTED || status == ND_LOST)
        return fall_back(threads, &why, backend, err);
    return nd_fail(err, status, "%s", why.text);
}

static PyObject *
describe_cpu(void)
{
    struct nd_backend *backend = NULL;
    struct nd_error err = {0};
    if (nd_cpu_backend_create(0, NULL, &backend, &err) != ND_OK)
        return PyErr_NoMemory();
    PyObject *told = Py_BuildValue("{ssssss}", "name", "cpu", "type", "cpu",
                                   "description", backend->device);
    backend->functions->destroy(backend);
    return told;
}

/* "llvmpipe (...); driver llvmpipe, Mesa 22.3.6 (...); Vulkan 1.3.230; ..." */
static PyObject *
describe_gpu(const struct nd_gpu_info *info)
{
    return PyUnicode_FromFormat(
        "%s; driver %s; Vulkan %u.%u.%u; subgroups of %u; %llu MB", info->name,
        info->driver, info->api[0], info->api[1], info->api[2], info->subgroup,
        (unsigned long long)(info->memory_bytes >> 20));
}

/* Adds vulkan:N for every device; none, or no loader, adds nothing. */
static int
append_gpus(PyObject *list)
{
    struct nd_gpu_info info[GPUS_MOST];
    size_t count = 0;
    if (nd_gpu_devices(info, GPUS_MOST, &count, NULL) != ND_OK)
        return 0;
    for (size_t i = 0; i < count && i < GPUS_MOST; i++) {
        PyObject *told = Py_BuildValue(
            "{sNsssN}", "name", PyUnicode_FromFormat("vulkan:%zu", i), "type",
            nd_gpu_type_name(info[i].type), "description",
            describe_gpu(&info[i]));
        if (told == NULL || PyList_Append(list, told) < 0) {
            Py_XDECREF(told);
            return -1;
        }
        Py_DECREF(told);
    }
    return 0;
}

const char nd_py_devices_doc[] =
"devices()\n--\n\n"
"List the devices that can sample: dicts of name, type, description.";

PyObject *
nd_py_devices(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *list = PyList_New(0), *cpu = describe_cpu();
    if (list == NULL || cpu == NULL || PyList_Append(list, cpu) < 0)
        Py_CLEAR(list);
    if (list != NULL && append_gpus(list) < 0)
        Py_CLEAR(list);
    Py_XDECREF(cpu);
    return list;
}
