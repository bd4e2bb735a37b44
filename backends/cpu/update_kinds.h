/* The steps of optimizers, as an X-macro: how sp_isa counts them, the function of vectors in
 * update_steps.h, how many states it keeps. Included more than once.
 */
SP_UPDATE(SP_UPDATE_SGD, sgd, 1)
SP_UPDATE(SP_UPDATE_SGD_MOMENTUM, sgd_momentum, 2)
SP_UPDATE(SP_UPDATE_ADAM, adam, 3)
SP_UPDATE(SP_UPDATE_ADAM_AMSGRAD, adam_amsgrad, 4)
SP_UPDATE(SP_UPDATE_RMSPROP, rmsprop, 2)
SP_UPDATE(SP_UPDATE_RMSPROP_MOMENTUM, rmsprop_momentum, 3)
SP_UPDATE(SP_UPDATE_RMSPROP_CENTERED, rmsprop_centered, 3)
SP_UPDATE(SP_UPDATE_RMSPROP_CENTERED_MOMENTUM, rmsprop_centered_momentum, 4)
SP_UPDATE(SP_UPDATE_ADAGRAD, adagrad, 2)
SP_UPDATE(SP_UPDATE_ADAMAX, adamax, 3)
SP_UPDATE(SP_UPDATE_NADAM, nadam, 3)
SP_UPDATE(SP_UPDATE_RADAM, radam, 3)
SP_UPDATE(SP_UPDATE_ADADELTA, adadelta, 3)
#undef SP_UPDATE
