/* Starting the library. */
#ifndef SP_START_H
#define SP_START_H

/* Registers backends, the tape and the compiler; runs by itself before main(), and once only. */
void sp__start(void);

#endif
