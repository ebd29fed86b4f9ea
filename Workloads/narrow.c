// A 32-bit program without a library: says that it is ready and waits, for a migration that has to refuse it by name.
static inline int call(int number, int a, int b, int c) {
  int result;
  __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
  return result;
}
void _start(void) {
  static const char ready[] = "{\"ready\":\"narrow\"}\n";
  enum { WRITE = 4, PAUSE = 29 };
  call(WRITE, 1, (int)ready, sizeof ready - 1);
  for (;;) call(PAUSE, 0, 0, 0);
}
