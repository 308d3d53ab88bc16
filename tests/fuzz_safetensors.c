/* Any bytes as a safetensors file: a result or an error, nothing else. */
#include "engine/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct nd_safetensors *file = NULL;
    struct nd_error err = {0};
    float values[64];
    if (nd_safetensors_parse(data, size, "fuzz", &file, &err) != ND_OK) {
        if (file != NULL || err.text[0] == '\0')
            abort();
        return 0;
    }
    nd_safetensors_read(file, "a", 8, 8, values, &err);
    nd_safetensors_read(file, "a", 64, 0, values, &err);
    nd_safetensors_read(file, "b", 1, 4, values, &err);
    nd_safetensors_close(file);
    return 0;
}
