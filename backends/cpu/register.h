/* The CPU as a backend.
 */
#ifndef SP_CPU_REGISTER_H
#define SP_CPU_REGISTER_H

/* Picks the instruction set and enters the CPU into sp__backends[]. Called once, at library start.
 */
void sp__cpu_register(void);

#endif
