// What the parts of `shapes` share: kinds of state, each on a thread of its own that checks and changes it for ever.
#pragma once

#include <errno.h>
#include <string.h>

#include "support.h"

struct kind {
  const char *name;
  // What a migration says of it as long as it is there; NULL: it is carried.
  const char *refused;
  size_t size;  // Of its state, which starts as zeros.
  void (*set_up)(void *state, struct random *random);
  // Checks everything that was set, then changes some of it.
  void (*turn)(void *state, struct random *random);
  // For kinds that are refused: afterwards nothing of it is left.
  void (*give_up)(void *state);
};

extern const struct kind file_kinds[], descriptor_kinds[], socket_kinds[], memory_kinds[], signal_kinds[], process_kinds[],
    refused_kinds[];

// Says what is wrong with the calling thread's kind, and ends the program with status 42.
__attribute__((format(printf, 1, 2), noreturn)) void wrong(const char *format, ...);
// wrong() unless the call succeeds; its value.
#define MUST(call)                                                      \
  ({                                                                    \
    __typeof__(call) result_ = (call);                                  \
    if ((long)result_ == -1) wrong("%s: %s", #call, strerror(errno)); \
    result_;                                                            \
  })
// wrong() unless both are equal.
#define SAME(what, wanted, found)                                                             \
  ({                                                                                          \
    long long wanted_ = (long long)(wanted), found_ = (long long)(found);                     \
    if (wanted_ != found_) wrong("%s: %lld instead of %lld", what, found_, wanted_); \
  })

// A folder for the calling kind alone, made here, on one of the file systems that the program was given.
void make_folder(char path[static 256], const char *name, struct random *random);
void rest(uint64_t microseconds);

// What stands at a place of a file or a stream that this number names.
static inline uint8_t byte_of(uint64_t stream, uint64_t place) { return (uint8_t)mix(stream * 0x10001 + place); }
static inline void fill_bytes(uint8_t *bytes, size_t count, uint64_t stream, uint64_t place) {
  for (size_t index = 0; index < count; index++) bytes[index] = byte_of(stream, place + index);
}
// wrong() unless the bytes are those of the stream from this place on.
void check_bytes(const char *what, const uint8_t *bytes, size_t count, uint64_t stream, uint64_t place);

#define COUNT(array) (sizeof(array) / sizeof *(array))
