/* Graphs in C: capturing a computation, running it compiled, its textual form, ONNX.
 *
 *     cc graph.c $(pkg-config --cflags --libs spool) -o graph && ./graph
 */
#include <spool.h>
#include <stdio.h>
#include <string.h>

#define TRY(call)                                                                                  \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != SP_OK) goto out;                                                             \
    } while (0)

/* relu(x w' + b), computed and recorded; w and b become constants of the graph. */
static sp_status capture(const sp_tensor *x, const sp_tensor *w, const sp_tensor *b, sp_tensor **y,
                         sp_graph **graph)
{
    sp_tensor *line = NULL;
    sp_status status;
    TRY(sp_capture_begin(&x, 1));
    status = sp_linear(x, w, b, &line);
    if (status == SP_OK) status = sp_relu(line, y);
    const sp_tensor *const outputs[] = {*y};
    /* Ends in any case; without outputs where the computation failed. */
    sp_status ended = sp_capture_end(outputs, status == SP_OK, graph);
    if (status == SP_OK) status = ended;
out:
    sp_drop(&line);
    return status;
}

static sp_status same_values(const sp_tensor *a, const sp_tensor *b, bool *same)
{
    float left[4], right[4];
    sp_status status;
    TRY(sp_copy_out(a, left, sizeof left));
    TRY(sp_copy_out(b, right, sizeof right));
    *same = memcmp(left, right, sizeof left) == 0;
out:
    return status;
}

int main(void)
{
    const float xs[] = {1, -2, 3, 0.5f, 4, -1}, ws[] = {1, 0, -1, 0.5f, 2, 1}, bs[] = {0.1f, -0.2f};
    sp_tensor *x = NULL, *w = NULL, *b = NULL, *y = NULL, *again = NULL, *loaded_y = NULL;
    sp_graph *graph = NULL, *loaded = NULL;
    char *text = NULL;
    const char *path = "example_graph.onnx";
    bool same = false, loaded_same = false;
    sp_status status;

    TRY(sp_from_data(xs, SP_FLOAT32, 2, (int64_t[]){2, 3}, &x));
    TRY(sp_from_data(ws, SP_FLOAT32, 2, (int64_t[]){2, 3}, &w));
    TRY(sp_from_data(bs, SP_FLOAT32, 1, (int64_t[]){2}, &b));
    TRY(capture(x, w, b, &y, &graph));
    TRY(sp_graph_text(graph, &text));
    printf("%s\n", text);

    TRY(sp_graph_run(graph, (const sp_tensor *const[]){x}, 1, &again, 1));
    TRY(same_values(y, again, &same));
    printf("compiled and eager results %s\n", same ? "are equal bit for bit" : "DIFFER");

    TRY(sp_onnx_save(graph, path));
    TRY(sp_onnx_load(path, &loaded));
    TRY(sp_graph_run(loaded, (const sp_tensor *const[]){x}, 1, &loaded_y, 1));
    TRY(same_values(y, loaded_y, &loaded_same));
    printf("saved to %s and loaded: results %s\n", path, loaded_same ? "are equal" : "DIFFER");
out:
    if (status != SP_OK) fprintf(stderr, "%s: %s\n", sp_status_name(status), sp_last_error());
    remove(path);
    sp_text_free(text);
    sp_graph_drop(&graph), sp_graph_drop(&loaded);
    sp_drop(&x), sp_drop(&w), sp_drop(&b), sp_drop(&y), sp_drop(&again), sp_drop(&loaded_y);
    return status != SP_OK || !same || !loaded_same;
}
