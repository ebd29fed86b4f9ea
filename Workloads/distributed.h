// What the services of the distributed application share: messages and the TCP connections that carry them.
//
//   client ── gateway ── worker ── store (redis)
//
// Every request passes through all of them, and each adds what only it can know: the gateway numbers all requests, the
// worker keeps a running digest of each session, the store holds the digest that the worker gave it last. The client
// can tell what each of them must say, so one lost, repeated or stale piece of state anywhere shows in an answer.
#pragma once

#include "support.h"

enum { REQUEST = 1, STATUS = 2, MOST_SESSIONS = 4096 };

// As it travels, little-endian. STATUS asks for everything that is known: `number` and `count` are then what gateway and
// worker have served, `digest` is the sum over all sessions, `stored` how many of the worker's pages are wrong.
struct message {
  uint64_t kind;
  uint64_t number;    // The gateway's: from 1, over all sessions.
  uint64_t session;   // The client's: 0 to MOST_SESSIONS - 1, one for each of its connections.
  uint64_t sequence;  // The client's: from 1, for each session.
  uint64_t word;      // The client's: anything.
  uint64_t count;     // The worker's: requests of this session.
  uint64_t digest;    // The worker's: over all words of this session.
  uint64_t stored;    // The store's: the digest before this one; 0: none.
};

// A connection that never blocks: what cannot be sent yet waits.
struct stream {
  int file;
  bool wants_room;  // Whether epoll waits for room too.
  size_t in_length, out_length, out_room;
  uint8_t *out;
  uint8_t in[65536];
};

// Listens on all addresses; the descriptor.
int distributed_listen(unsigned port);
// Connects to ADDRESS:PORT, for up to 30 seconds.
struct stream *distributed_connect(const char *where);
// Takes a connection from a listening descriptor; NULL: there is none.
struct stream *distributed_accept(int listening);

// Has epoll watch a descriptor; `tag` comes back with its events.
void distributed_watch(int poller, int file, void *tag);
// Reads what is there; false: the other side closed the connection.
bool stream_read(struct stream *stream);
// Takes `length` bytes off the input's front.
void stream_take(struct stream *stream, size_t length);
// Sends, or keeps for later.
void stream_send(int poller, struct stream *stream, const void *bytes, size_t length);
// Sends what is kept, as far as there is room; false: the connection is broken.
bool stream_flush(int poller, struct stream *stream);
void stream_close(struct stream *stream);
