// A small message server, as the edge services need it: TCP, and UDP if wanted, on one port, one thread that answers.
//
// A message begins with its length, which includes this header; numbers are little-endian. Over TCP messages follow
// each other, over UDP each is a datagram.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "support.h"

struct message {
  uint32_t length;
  uint16_t kind, unused;
};

enum { MESSAGE_MOST = 1024 };  // The longest that a client may send.

// Where a message came from, and where its answer goes.
struct peer;

// Sends one or several messages. What a datagram socket does not take is lost; a connection that takes nothing for
// 10 s is closed.
void answer(struct peer *peer, const void *messages, size_t length);
// A message of this kind with the text as its content.
void answer_text(struct peer *peer, uint16_t kind, const char *text, size_t length);

// Starts answering, datagrams only if told so. `handle` is called by one thread, for one message after the other.
void service_start(uint16_t port, bool with_datagrams, void (*handle)(const struct message *message, struct peer *peer));

// Says that the service is ready, then waits for SIGTERM and ends the program.
void __attribute__((noreturn)) service_run(const char *name);
