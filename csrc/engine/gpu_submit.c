#include "gpu_internal.h"

#include <string.h>

#include "params.h"

enum nd_status
nd_gpu_submit_init(struct nd_gpu *gpu, struct nd_error *err)
{
    struct nd_vk *vk = &gpu->root.vk;
    VkCommandPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
        .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
        .queueFamilyIndex = gpu->family,
    };
    VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    VK(vk->CreateCommandPool(gpu->device, &pool, NULL, &gpu->pool));
    VkCommandBufferAllocateInfo buffer = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = gpu->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    VK(vk->AllocateCommandBuffers(gpu->device, &buffer, &gpu->transfer));
    VK(vk->CreateFence(gpu->device, &fence, NULL, &gpu->fence));
    return ND_OK;
error:
    return nd_gpu_failed(err);
}

void
nd_gpu_submit_end(struct nd_gpu *gpu)
{
    gpu->root.vk.DestroyFence(gpu->device, gpu->fence, NULL);
    gpu->root.vk.DestroyCommandPool(gpu->device, gpu->pool, NULL);
    gpu->fence = VK_NULL_HANDLE;
    gpu->pool = VK_NULL_HANDLE;
    gpu->running = false;
}

enum nd_status
nd_gpu_wait(struct nd_gpu *gpu, struct nd_error *err)
{
    if (gpu->running) {
        gpu->running = false;
        VK(gpu->root.vk.WaitForFences(gpu->device, 1, &gpu->fence, VK_TRUE,
                                      UINT64_MAX));
        VK(gpu->root.vk.ResetFences(gpu->device, 1, &gpu->fence));
    }
    return nd_gpu_check(gpu, err);
error:
    return nd_gpu_failed(err);
}

enum nd_status
nd_gpu_submit(struct nd_gpu *gpu, VkCommandBuffer commands,
              struct nd_error *err)
{
    VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .commandBufferCount = 1,
        .pCommandBuffers = &commands,
    };
    enum nd_status status = nd_gpu_wait(gpu, err);
    if (status != ND_OK)
        return status;
    VK(gpu->root.vk.QueueSubmit(gpu->queue, 1, &info, gpu->fence));
    gpu->running = true;
    return ND_OK;
error:
    return nd_gpu_failed(err);
}

/* Everything before, on the device, is seen by everything after. */
static void
barrier(struct nd_gpu *gpu, VkCommandBuffer commands, bool host)
{
    VkMemoryBarrier memory = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask =
            VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_SHADER_READ_BIT |
                         VK_ACCESS_SHADER_WRITE_BIT |
                         VK_ACCESS_TRANSFER_READ_BIT |
                         VK_ACCESS_TRANSFER_WRITE_BIT |
                         (host ? VK_ACCESS_HOST_READ_BIT : 0u),
    };
    const VkPipelineStageFlags stages =
        VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    gpu->root.vk.CmdPipelineBarrier(
        commands, stages, stages | (host ? VK_PIPELINE_STAGE_HOST_BIT : 0u), 0,
        1, &memory, 0, NULL, 0, NULL);
}

enum nd_status
nd_gpu_transfer_begin(struct nd_gpu *gpu, struct nd_error *err)
{
    VkCommandBufferBeginInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
        .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT,
    };
    enum nd_status status = nd_gpu_wait(gpu, err);
    if (status != ND_OK)
        return status;
    VK(gpu->root.vk.BeginCommandBuffer(gpu->transfer, &info));
    return ND_OK;
error:
    return nd_gpu_failed(err);
}

enum nd_status
nd_gpu_transfer_end(struct nd_gpu *gpu, struct nd_error *err)
{
    enum nd_status status;
    barrier(gpu, gpu->transfer, true);
    VK(gpu->root.vk.EndCommandBuffer(gpu->transfer));
    status = nd_gpu_submit(gpu, gpu->transfer, err);
    return status == ND_OK ? nd_gpu_wait(gpu, err) : status;
error:
    return nd_gpu_failed(err);
}

/* --- recordings --------------------------------------------------------- */

enum nd_status
nd_gpu_recording_begin(struct nd_gpu *gpu, size_t max_calls,
                       struct nd_gpu_recording *out, struct nd_error *err)
{
    struct nd_vk *vk = &gpu->root.vk;
    uint32_t n = max_calls == 0 ? 1 : (uint32_t)max_calls;
    VkDescriptorPoolSize sizes[] = {
        {VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER, n * ND_GPU_MAX_INPUTS},
        {VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
         n * (ND_GPU_MAX_INPUTS + ND_GPU_MAX_OUTPUTS + 1)},
    };
    VkDescriptorPoolCreateInfo pool = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
        .maxSets = n,
        .poolSizeCount = 2,
        .pPoolSizes = sizes,
    };
    VkCommandBufferAllocateInfo buffer = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = gpu->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    VkCommandBufferBeginInfo begin = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    memset(out, 0, sizeof *out);
    VK(vk->CreateDescriptorPool(gpu->device, &pool, NULL, &out->sets));
    VK(vk->AllocateCommandBuffers(gpu->device, &buffer, &out->commands));
    VK(vk->BeginCommandBuffer(out->commands, &begin));
    return ND_OK;
error:
    nd_gpu_recording_free(gpu, out);
    return nd_gpu_failed(err);
}

enum nd_status
nd_gpu_recording_end(struct nd_gpu *gpu,
                     const struct nd_gpu_recording *recording,
                     struct nd_error *err)
{
    barrier(gpu, recording->commands, true);
    VK(gpu->root.vk.EndCommandBuffer(recording->commands));
    return nd_gpu_check(gpu, err);
error:
    return nd_gpu_failed(err);
}

void
nd_gpu_recording_free(struct nd_gpu *gpu, struct nd_gpu_recording *recording)
{
    struct nd_vk *vk = &gpu->root.vk;
    if (recording->commands != VK_NULL_HANDLE)
        vk->FreeCommandBuffers(gpu->device, gpu->pool, 1,
                               &recording->commands);
    vk->DestroyDescriptorPool(gpu->device, recording->sets, NULL);
    memset(recording, 0, sizeof *recording);
}

/* Descriptor writes of one call; the infos must not move until the update. */
struct bindings {
    VkDescriptorBufferInfo infos[ND_GPU_MAX_INPUTS + ND_GPU_MAX_OUTPUTS + 1];
    VkWriteDescriptorSet writes[2 * ND_GPU_MAX_INPUTS + ND_GPU_MAX_OUTPUTS +
                                1];
    uint32_t n_infos, n_writes;
};

static VkWriteDescriptorSet *
new_write(struct bindings *b, VkDescriptorSet set, uint32_t binding,
          VkDescriptorType type)
{
    VkWriteDescriptorSet *write = &b->writes[b->n_writes++];
    *write = (VkWriteDescriptorSet){
        .sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
        .dstSet = set,
        .dstBinding = binding,
        .descriptorCount = 1,
        .descriptorType = type,
    };
    return write;
}

static void
bind_buffer(struct bindings *b, VkDescriptorSet set, uint32_t binding,
            const struct nd_gpu_buffer *buffer)
{
    VkDescriptorBufferInfo *info = &b->infos[b->n_infos++];
    *info = (VkDescriptorBufferInfo){buffer->buffer, 0, VK_WHOLE_SIZE};
    new_write(b, set, binding, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER)
        ->pBufferInfo = info;
}

static void
write_set(struct nd_gpu *gpu, const struct nd_gpu_call *call,
          VkDescriptorSet set)
{
    const struct nd_gpu_signature *s = nd_gpu_signature(call->shader);
    struct bindings b = {.n_infos = 0};
    bool texels = gpu->kernels->texels;
    for (uint32_t i = 0; i < s->inputs; i++) {
        const struct nd_gpu_buffer *zeros = &gpu->zeros[s->words >> i & 1];
        const struct nd_gpu_buffer *in =
            call->inputs[i] == NULL ? zeros : call->inputs[i];
        bind_buffer(&b, set, ND_BIND_WORDS + i, in);
        new_write(&b, set, i, VK_DESCRIPTOR_TYPE_STORAGE_TEXEL_BUFFER)
            ->pTexelBufferView = texels ? &in->view : &zeros->view;
    }
    for (uint32_t i = 0; i < s->outputs; i++)
        bind_buffer(&b, set, ND_BIND_OUT + i, call->outputs[i]);
    if (s->step)
        bind_buffer(&b, set, ND_BIND_STEP, &gpu->step);
    gpu->root.vk.UpdateDescriptorSets(gpu->device, b.n_writes, b.writes, 0,
                                      NULL);
}

static enum nd_status
check_grid(const struct nd_gpu *gpu, const struct nd_gpu_call *call,
           struct nd_error *err)
{
    for (int i = 0; i < 3; i++)
        if (call->groups[i] > gpu->limits.maxComputeWorkGroupCount[i])
            return nd_fail(err, ND_NO_MEMORY,
                           "the batch is too large for %s; sample fewer "
                           "flows at once",
                           gpu->info.name);
    return ND_OK;
}

enum nd_status
nd_gpu_dispatch(struct nd_gpu *gpu, const struct nd_gpu_recording *recording,
                const struct nd_gpu_call *call, struct nd_error *err)
{
    struct nd_vk *vk = &gpu->root.vk;
    VkCommandBuffer commands = recording->commands;
    VkPipelineLayout layout = gpu->layouts[call->shader];
    uint32_t constants[ND_GPU_MAX_CONSTANTS];
    VkDescriptorSet set;
    VkPipeline pipeline;
    memcpy(constants, call->constants, sizeof constants);
    constants[1] = gpu->kernels->texels;
    if (check_grid(gpu, call, err) != ND_OK ||
        nd_gpu_pipeline(gpu, call->shader, constants, &pipeline, err) != ND_OK)
        goto error;
    VkDescriptorSetAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
        .descriptorPool = recording->sets,
        .descriptorSetCount = 1,
        .pSetLayouts = &gpu->set_layouts[call->shader],
    };
    VK(vk->AllocateDescriptorSets(gpu->device, &info, &set));
    write_set(gpu, call, set);
    vk->CmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    vk->CmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout,
                              0, 1, &set, 0, NULL);
    vk->CmdPushConstants(commands, layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                         call->params_bytes, call->params);
    vk->CmdDispatch(commands, (uint32_t)call->groups[0],
                    (uint32_t)call->groups[1], (uint32_t)call->groups[2]);
    barrier(gpu, commands, false);
    return ND_OK;
error:
    return nd_gpu_failed(err);
}
