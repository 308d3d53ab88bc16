#include "gpu_internal.h"

#include <string.h>

#include "attention.spv.h"
#include "attention_tile.spv.h"
#include "condition.spv.h"
#include "draw.spv.h"
#include "estimate.spv.h"
#include "hold.spv.h"
#include "input.spv.h"
#include "linear.spv.h"
#include "linear_subgroup.spv.h"
#include "linear_tile.spv.h"
#include "noise.spv.h"
#include "norm.spv.h"
#include "params.h"
#include "renoise.spv.h"
#include "rotary.spv.h"

const struct nd_gpu_signature *
nd_gpu_signature(enum nd_gpu_shader shader)
{
    static const struct nd_gpu_signature table[] = {
#define X(stem, inputs, words, outputs, step)                                 \
    {nd_spv_##stem, sizeof nd_spv_##stem, inputs, words, outputs, step},
        ND_GPU_SHADERS(X)
#undef X
    };
    return &table[shader];
}

static enum nd_status
create_layout(struct nd_gpu *gpu, enum nd_gpu_shader shader,
              struct nd_error *err)
{
    const struct nd_gpu_signature *s = nd_gpu_signature(shader);
    VkDescriptorSetLayoutBinding list[2 * ND_GPU_MAX_INPUTS +
                                      ND_GPU_MAX_OUTPUTS + 1];
    uint32_t n = 0;
    memset(list, 0, sizeof list);
    for (uint32_t i = 0; i < s->inputs; i++) {
        list[n].descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER;
        list[n++].binding = i;
        list[n++].binding = ND_BIND_WORDS + i;
    }
    for (uint32_t i = 0; i < s->outputs; i++)
        list[n++].binding = ND_BIND_OUT + i;
    if (s->step)
        list[n++].binding = ND_BIND_STEP;
    for (uint32_t i = 0; i < n; i++) {
        if (list[i].descriptorType != VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER)
            list[i].descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
        list[i].descriptorCount = 1;
        list[i].stageFlags = VK_SHADER_STAGE_COMPUTE_BIT;
    }
    VkDescriptorSetLayoutCreateInfo set = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
        .bindingCount = n,
        .pBindings = list,
    };
    VK(gpu->root.vk.CreateDescriptorSetLayout(gpu->device, &set, NULL,
                                              &gpu->set_layouts[shader]));
    VkPushConstantRange push = {VK_SHADER_STAGE_COMPUTE_BIT, 0, 128};
    VkPipelineLayoutCreateInfo layout = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .setLayoutCount = 1,
        .pSetLayouts = &gpu->set_layouts[shader],
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &push,
    };
    VK(gpu->root.vk.CreatePipelineLayout(gpu->device, &layout, NULL,
                                         &gpu->layouts[shader]));
    return ND_OK;
error:
    return nd_gpu_failed(err);
}

enum nd_status
nd_gpu_pipelines_init(struct nd_gpu *gpu, struct nd_error *err)
{
    enum nd_status status = ND_OK;
    for (int i = 0; i < ND_GPU_SHADER_COUNT && status == ND_OK; i++)
        status = create_layout(gpu, (enum nd_gpu_shader)i, err);
    if (status == ND_OK)
        nd_gpu_load_pipelines(gpu);
    return status;
}

void
nd_gpu_pipelines_end(struct nd_gpu *gpu)
{
    struct nd_vk *vk = &gpu->root.vk;
    nd_gpu_save_pipelines(gpu);
    for (size_t i = 0; i < gpu->n_pipelines; i++)
        vk->DestroyPipeline(gpu->device, gpu->pipelines[i].pipeline, NULL);
    for (int i = 0; i < ND_GPU_SHADER_COUNT; i++) {
        vk->DestroyPipelineLayout(gpu->device, gpu->layouts[i], NULL);
        vk->DestroyDescriptorSetLayout(gpu->device, gpu->set_layouts[i], NULL);
        gpu->layouts[i] = VK_NULL_HANDLE;
        gpu->set_layouts[i] = VK_NULL_HANDLE;
    }
    gpu->n_pipelines = 0;
}

static enum nd_status
create_pipeline(struct nd_gpu *gpu, struct nd_gpu_pipeline *p,
                struct nd_error *err)
{
    struct nd_vk *vk = &gpu->root.vk;
    const struct nd_gpu_signature *s = nd_gpu_signature(p->shader);
    VkShaderModule module = VK_NULL_HANDLE;
    VkSpecializationMapEntry entries[ND_GPU_MAX_CONSTANTS];
    for (uint32_t i = 0; i < ND_GPU_MAX_CONSTANTS; i++)
        entries[i] = (VkSpecializationMapEntry){i, 4 * i, 4};
    VkSpecializationInfo constants = {ND_GPU_MAX_CONSTANTS, entries,
                                      sizeof p->constants, p->constants};
    VkShaderModuleCreateInfo code = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = s->code_bytes,
        .pCode = s->code,
    };
    VK(vk->CreateShaderModule(gpu->device, &code, NULL, &module));
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = {.sType =
                      VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main",
                  .pSpecializationInfo = &constants},
        .layout = gpu->layouts[p->shader],
    };
    VK(vk->CreateComputePipelines(gpu->device, gpu->cache, 1, &info, NULL,
                                  &p->pipeline));
    vk->DestroyShaderModule(gpu->device, module, NULL);
    return ND_OK;
error:
    vk->DestroyShaderModule(gpu->device, module, NULL);
    return nd_gpu_failed(err);
}

enum nd_status
nd_gpu_pipeline(struct nd_gpu *gpu, enum nd_gpu_shader shader,
                const uint32_t *constants, VkPipeline *out,
                struct nd_error *err)
{
    struct nd_gpu_pipeline *p = gpu->pipelines;
    for (size_t i = 0; i < gpu->n_pipelines; i++, p++)
        if (p->shader == shader &&
            memcmp(p->constants, constants, sizeof p->constants) == 0) {
            *out = p->pipeline;
            return ND_OK;
        }
    if (gpu->n_pipelines == ND_GPU_MAX_PIPELINES)
        return nd_fail(err, ND_DEVICE, "Vulkan: more than %d kernel variants",
                       ND_GPU_MAX_PIPELINES);
    p->shader = shader;
    memcpy(p->constants, constants, sizeof p->constants);
    enum nd_status status = create_pipeline(gpu, p, err);
    if (status == ND_OK) {
        gpu->n_pipelines++;
        *out = p->pipeline;
    }
    return status;
}
