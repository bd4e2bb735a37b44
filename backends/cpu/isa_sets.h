/* The instruction sets that this build has lanes.c for, as an X-macro; included more than once.
 */
#ifdef SP_HAVE_BASELINE
SP_ISA_SET(baseline)
#endif
#ifdef SP_HAVE_AVX2
SP_ISA_SET(avx2)
#endif
#ifdef SP_HAVE_AVX512
SP_ISA_SET(avx512)
#endif
#undef SP_ISA_SET
