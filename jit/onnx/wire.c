/* Reading and writing the protocol-buffers wire format; see wire.h. */
#include "jit/onnx/wire.h"

#include <string.h>

#include "tensor/memory.h"

static bool read_varint(sp_wire *w, uint64_t *out)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (w->at == w->end) return false;
        uint8_t byte = *w->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = value;
            return true;
        }
    }
    return false;
}

static bool read_fixed(sp_wire *w, size_t size, sp_field *out)
{
    if ((size_t)(w->end - w->at) < size) return false;
    out->bytes = (sp_bytes){w->at, size};
    out->varint = 0;
    memcpy(&out->varint, w->at, size);
    w->at += size;
    return true;
}

static bool read_bytes(sp_wire *w, sp_field *out)
{
    uint64_t size;
    if (!read_varint(w, &size) || size > (uint64_t)(w->end - w->at)) return false;
    out->bytes = (sp_bytes){w->at, (size_t)size};
    w->at += size;
    return true;
}

static bool read_value(sp_wire *w, sp_field *out)
{
    switch (out->type) {
    case SP_WIRE_VARINT: return read_varint(w, &out->varint);
    case SP_WIRE_FIXED64: return read_fixed(w, 8, out);
    case SP_WIRE_BYTES: return read_bytes(w, out);
    case SP_WIRE_FIXED32: return read_fixed(w, 4, out);
    default: return false;
    }
}

bool sp__wire_next(sp_wire *w, sp_field *out)
{
    uint64_t key;
    if (w->broken || w->at == w->end) return false;
    bool good = read_varint(w, &key) && key >> 3 != 0 && key >> 3 <= 0x1fffffff;
    if (good) {
        out->number = (uint32_t)(key >> 3), out->type = key & 7;
        good = read_value(w, out);
    }
    w->broken = !good;
    return good;
}

bool sp__wire_repeated(const sp_field *f, sp_wire_type element,
                       void (*put)(void *ctx, uint64_t bits), void *ctx)
{
    if (f->type == element) {
        put(ctx, f->varint);
        return true;
    }
    if (f->type != SP_WIRE_BYTES) return false;
    sp_wire packed = sp__wire_open(f->bytes);
    sp_field one = {.type = (uint8_t)element};
    while (packed.at != packed.end) {
        if (!read_value(&packed, &one)) return false;
        put(ctx, one.varint);
    }
    return true;
}

static uint8_t *reserve(sp_out *o, size_t size)
{
    if (o->failed) return NULL;
    if (o->capacity - o->size < size) {
        size_t capacity = (o->capacity + size) * 2;
        uint8_t *data = capacity < size ? NULL : sp__realloc(o->data, o->capacity, capacity);
        if (data == NULL) {
            o->failed = true;
            return NULL;
        }
        o->data = data, o->capacity = capacity;
    }
    uint8_t *at = o->data + o->size;
    o->size += size;
    return at;
}

static void put_varint(sp_out *o, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) bytes[n++] = (uint8_t)(value | 0x80);
    bytes[n++] = (uint8_t)value;
    uint8_t *at = reserve(o, n);
    if (at != NULL) memcpy(at, bytes, n);
}

static void put_key(sp_out *o, uint32_t number, sp_wire_type type)
{
    put_varint(o, (uint64_t)number << 3 | type);
}

void sp__out_varint(sp_out *o, uint32_t number, uint64_t value)
{
    put_key(o, number, SP_WIRE_VARINT);
    put_varint(o, value);
}

void sp__out_float(sp_out *o, uint32_t number, float value)
{
    put_key(o, number, SP_WIRE_FIXED32);
    uint8_t *at = reserve(o, sizeof value);
    if (at != NULL) memcpy(at, &value, sizeof value);
}

void sp__out_bytes(sp_out *o, uint32_t number, const void *data, size_t size)
{
    put_key(o, number, SP_WIRE_BYTES);
    put_varint(o, size);
    uint8_t *at = reserve(o, size);
    if (at != NULL && size > 0) memcpy(at, data, size);
}

void sp__out_text(sp_out *o, uint32_t number, const char *text)
{
    sp__out_bytes(o, number, text, strlen(text));
}

void sp__out_message(sp_out *o, uint32_t number, sp_out *inner)
{
    sp__out_bytes(o, number, inner->data, inner->size);
    o->failed |= inner->failed;
    inner->size = 0;
}

void sp__out_free(sp_out *o)
{
    sp__free(o->data, o->capacity);
    *o = (sp_out){0};
}

sp_status sp__out_finish(const sp_out *o)
{
    return o->failed ? sp_fail(SP_EMEMORY, "onnx: no memory for a message of %zu bytes", o->size)
                     : SP_OK;
}
