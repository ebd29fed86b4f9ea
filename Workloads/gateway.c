// The front service of the distributed application: numbers the clients' requests, has the worker serve them, and gives
// the answers back. Its state is the last number, and which request in flight is whose.
#define _GNU_SOURCE
#include <getopt.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "distributed.h"

static struct {
  unsigned port;
  const char *worker;
} options = {.port = 9000};

static int poller, listening;
static struct stream *worker;
static uint64_t number;

// The clients of the requests in flight, oldest first: the worker answers in order.
static struct {
  struct stream **clients;
  size_t first, count, room;
} flight;

static void flight_add(struct stream *client) {
  if (flight.count == flight.room) {
    size_t room = flight.room ? 2 * flight.room : 1024;
    struct stream **clients = calloc(room, sizeof *clients);
    if (!clients) fail("memory for requests in flight");
    for (size_t index = 0; index < flight.count; index++)
      clients[index] = flight.clients[(flight.first + index) % flight.room];
    free(flight.clients);
    flight.clients = clients, flight.room = room, flight.first = 0;
  }
  flight.clients[(flight.first + flight.count++) % flight.room] = client;
}

static struct stream *flight_take(void) {
  if (!flight.count) fail("the worker answered what nobody asked");
  struct stream *client = flight.clients[flight.first];
  flight.first = (flight.first + 1) % flight.room;
  flight.count--;
  return client;
}

static void serve_client(struct stream *client) {
  if (!stream_read(client)) {
    stream_close(client);  // Kept: answers for it may still come.
    return;
  }
  struct message *message = (struct message *)client->in;
  size_t whole = client->in_length / sizeof *message;
  for (size_t index = 0; index < whole; index++, message++) {
    message->number = message->kind == REQUEST ? ++number : number;
    flight_add(client);
    stream_send(poller, worker, message, sizeof *message);
  }
  stream_take(client, whole * sizeof *message);
}

static void serve_worker(void) {
  if (!stream_read(worker)) fail("the worker closed the connection");
  struct message *message = (struct message *)worker->in;
  size_t whole = worker->in_length / sizeof *message;
  for (size_t index = 0; index < whole; index++, message++)
    stream_send(poller, flight_take(), message, sizeof *message);
  stream_take(worker, whole * sizeof *message);
}

static void parse_options(int count, char **arguments) {
  enum { PORT = 1, WORKER };
  static const struct option table[] = {{"port", 1, 0, PORT}, {"worker", 1, 0, WORKER}, {0}};
  for (int choice, index; (choice = getopt_long(count, arguments, "", table, &index)) != -1;) {
    switch (choice) {
      case PORT: options.port = (unsigned)parse_number("port", optarg, 1, 65535); break;
      case WORKER: options.worker = optarg; break;
      default: fail("usage: gateway --worker ADDRESS:PORT [--port PORT]");
    }
  }
  if (!options.worker) fail("usage: gateway --worker ADDRESS:PORT [--port PORT]");
}

int main(int count, char **arguments) {
  parse_options(count, arguments);
  poller = epoll_create1(EPOLL_CLOEXEC);
  worker = distributed_connect(options.worker);
  distributed_watch(poller, worker->file, worker);
  listening = distributed_listen(options.port);
  distributed_watch(poller, listening, &listening);
  for (;;) {
    struct epoll_event events[64];
    int ready = epoll_wait(poller, events, 64, -1);
    for (int index = 0; index < ready; index++) {
      struct stream *stream = events[index].data.ptr;
      if (events[index].data.ptr == &listening) {
        for (struct stream *client; (client = distributed_accept(listening));) distributed_watch(poller, client->file, client);
        continue;
      }
      if (stream->file < 0) continue;
      if (events[index].events & EPOLLOUT) stream_flush(poller, stream);
      if (stream == worker) serve_worker();
      else serve_client(stream);
    }
  }
}
