/* Custom functions as a binding sees them, beyond what spool.h has.
 */
#ifndef SP_FUNCTION_H
#define SP_FUNCTION_H

#include "autograd/tape.h"

/* What sp_function_keep(call, data, drop) keeps for the call behind node, borrowed; NULL: the node
 * is of no function, or of one that keeps something else. */
void *sp__node_kept(const sp_node *node, void (*drop)(void *data));

#endif
