/* Protocol-buffers wire format, as much of it as ONNX files use, read without copying and without
 * recursion.
 *
 * A message is a run of fields: key = number << 3 | type, then a varint (type 0), 8 bytes (1), a
 * length and as many bytes (2), or 4 bytes (5); little-endian. Source: protobuf.dev, "Encoding".
 * Hand-written because a file may be hostile: nothing is allocated while reading, a nested message
 * is a slice that the caller opens, depth is the caller's own, and tensors stay where they lie in
 * the file.
 *
 * Invariants
 * 1. A reader never looks past its slice; a broken key, length or varint sets `broken` and ends the
 * message.
 * 2. Unknown fields are skipped: newer files stay readable.
 */
#ifndef SP_ONNX_WIRE_H
#define SP_ONNX_WIRE_H

#include "tensor/status.h"

typedef struct sp_bytes {
    const uint8_t *data;
    size_t size;
} sp_bytes;

typedef struct sp_wire {
    const uint8_t *at, *end;
    bool broken;
} sp_wire;

typedef enum sp_wire_type {
    SP_WIRE_VARINT = 0,
    SP_WIRE_FIXED64 = 1,
    SP_WIRE_BYTES = 2,
    SP_WIRE_FIXED32 = 5
} sp_wire_type;

typedef struct sp_field {
    uint32_t number;
    uint8_t type;
    uint64_t varint; /* VARINT, FIXED32 and FIXED64: the bits */
    sp_bytes bytes;  /* BYTES; for FIXED types too: where the bits lie */
} sp_field;

static inline sp_wire sp__wire_open(sp_bytes message)
{
    return (sp_wire){.at = message.data, .end = message.data + message.size, .broken = false};
}
/* The next field; false at the end and when broken. */
bool sp__wire_next(sp_wire *w, sp_field *out);
/* Numbers of a repeated int64, float or double field, packed or one by one: calls put(ctx, bits)
 * for each. False when the field's type does not fit `element` (SP_WIRE_VARINT, SP_WIRE_FIXED32 or
 * SP_WIRE_FIXED64). */
bool sp__wire_repeated(const sp_field *f, sp_wire_type element,
                       void (*put)(void *ctx, uint64_t bits), void *ctx);

/* ---- writing ----- */

/* A growing message. Failure sticks: every later call does nothing, sp__out_finish() reports it. */
typedef struct sp_out {
    uint8_t *data;
    size_t size, capacity;
    bool failed;
} sp_out;

void sp__out_varint(sp_out *o, uint32_t number, uint64_t value);
void sp__out_float(sp_out *o, uint32_t number, float value);
void sp__out_bytes(sp_out *o, uint32_t number, const void *data, size_t size);
void sp__out_text(sp_out *o, uint32_t number, const char *text);
/* Appends `inner` as field `number` and empties it for the next use; inner's failure is passed on.
 */
void sp__out_message(sp_out *o, uint32_t number, sp_out *inner);
void sp__out_free(sp_out *o);
/* SP_EMEMORY if anything failed. */
SP_MUST_USE sp_status sp__out_finish(const sp_out *o);

#endif
