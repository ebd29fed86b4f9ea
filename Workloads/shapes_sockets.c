// Sockets of the program to itself: TCP connections with both ends here, over loopback and over its own address, and UDP.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shapes.h"

static struct sockaddr_in loopback(void) {
  return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

// The first address of an interface other than lo; loopback's where there is none.
static struct sockaddr_in own_address(void) {
  struct sockaddr_in found = loopback();
  struct ifaddrs *all;
  if (getifaddrs(&all)) return found;
  for (struct ifaddrs *one = all; one; one = one->ifa_next)
    if (one->ifa_addr && one->ifa_addr->sa_family == AF_INET && strcmp(one->ifa_name, "lo")) {
      found.sin_addr = ((struct sockaddr_in *)one->ifa_addr)->sin_addr;
      break;
    }
  freeifaddrs(all);
  return found;
}

static struct sockaddr_in name_of(int number) {
  struct sockaddr_in name;
  socklen_t size = sizeof name;
  MUST(getsockname(number, (struct sockaddr *)&name, &size));
  return name;
}

// -- tcp, own-tcp: connections, some idle, some with bytes that wait, now and then closed and made again

enum { CONNECTIONS = 24, WAITING = 400 * 1000 };
struct tcp {
  struct sockaddr_in address;
  int listener;
  unsigned count;
  struct connection {
    int ends[2];
    bool idle;
    uint64_t stream[2], sent[2], received[2];  // By the end that sends.
    struct sockaddr_in names[2];
  } connections[CONNECTIONS];
};

static void make_connection(struct tcp *all, struct connection *connection, struct random *random) {
  *connection = (struct connection){.idle = random_below(random, 3) == 0};
  connection->ends[0] = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  MUST(connect(connection->ends[0], (struct sockaddr *)&all->address, sizeof all->address));
  connection->ends[1] = MUST(accept4(all->listener, NULL, NULL, SOCK_CLOEXEC));
  for (unsigned end = 0; end < 2; end++) {
    connection->stream[end] = random_next(random);
    connection->names[end] = name_of(connection->ends[end]);
    MUST(fcntl(connection->ends[end], F_SETFL, O_NONBLOCK));
  }
}

static void set_up(struct tcp *all, struct random *random) {
  all->listener = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  MUST(bind(all->listener, (struct sockaddr *)&all->address, sizeof all->address));
  MUST(listen(all->listener, 5));
  all->address = name_of(all->listener);
  all->count = 1 + (unsigned)random_below(random, CONNECTIONS);
  for (unsigned index = 0; index < all->count; index++) make_connection(all, &all->connections[index], random);
}
static void set_up_tcp(void *state, struct random *random) {
  ((struct tcp *)state)->address = loopback();
  set_up(state, random);
}
static void set_up_own_tcp(void *state, struct random *random) {
  ((struct tcp *)state)->address = own_address();
  set_up(state, random);
}

static void send_some(struct connection *connection, unsigned end, struct random *random) {
  uint8_t bytes[30000];
  size_t count = 1 + random_below(random, sizeof bytes);
  if (connection->sent[end] - connection->received[end] > WAITING) return;
  fill_bytes(bytes, count, connection->stream[end], connection->sent[end]);
  ssize_t sent = send(connection->ends[end], bytes, count, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) wrong("send: %s", strerror(errno));
  if (sent > 0) connection->sent[end] += (uint64_t)sent;
}

// What the end has sent, read at the other.
static void receive_some(struct connection *connection, unsigned end, struct random *random) {
  uint8_t bytes[30000];
  uint64_t waiting = connection->sent[end] - connection->received[end];
  struct pollfd other = {.fd = connection->ends[1 - end], .events = POLLIN};
  // What was sent arrives, though not at once while the program moves.
  if (waiting && poll(&other, 1, 20000) != 1) wrong("%llu bytes do not arrive", (unsigned long long)waiting);
  ssize_t got = recv(other.fd, bytes, 1 + random_below(random, sizeof bytes), 0);
  if (got < 0 && (errno != EAGAIN || waiting)) wrong("recv: %s, %llu wait", strerror(errno), (unsigned long long)waiting);
  if (got < 0) return;
  if (got == 0) wrong("the connection has ended");
  check_bytes("connection", bytes, (size_t)got, connection->stream[end], connection->received[end]);
  connection->received[end] += (uint64_t)got;
}

static void turn_connection(struct tcp *all, struct connection *connection, struct random *random) {
  for (unsigned end = 0; end < 2; end++) {
    struct sockaddr_in name = name_of(connection->ends[end]);
    SAME("port", connection->names[end].sin_port, name.sin_port);
    SAME("address", connection->names[end].sin_addr.s_addr, name.sin_addr.s_addr);
    // An idle one says a word now and then.
    if (connection->idle && random_below(random, 500)) continue;
    if (random_below(random, 2)) send_some(connection, end, random);
    else receive_some(connection, end, random);
  }
  if (random_below(random, 2000) == 0) {
    for (unsigned end = 0; end < 2; end++) MUST(close(connection->ends[end]));
    make_connection(all, connection, random);
  }
}

static void turn_tcp(void *state, struct random *random) {
  struct tcp *all = state;
  for (unsigned index = 0; index < all->count; index++) turn_connection(all, &all->connections[index], random);
}

// -- udp: datagrams that wait, in order

enum { SOCKETS = 4, QUEUE = 20, LONGEST = 3000 };
struct udp {
  struct udp_pair {
    int ends[2];
    struct sockaddr_in names[2];
    uint64_t sent, received, bytes_sent, bytes_received;
    size_t sizes[QUEUE];
  } pairs[SOCKETS];
};

static void set_up_udp(void *state, struct random *random) {
  struct udp *all = state;
  for (unsigned index = 0; index < SOCKETS; index++) {
    struct udp_pair *pair = &all->pairs[index];
    struct sockaddr_in address = random_below(random, 2) ? loopback() : own_address();
    for (unsigned end = 0; end < 2; end++) {
      pair->ends[end] = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      MUST(bind(pair->ends[end], (struct sockaddr *)&address, sizeof address));
      pair->names[end] = name_of(pair->ends[end]);
    }
    // Every other one is connected.
    if (index % 2) MUST(connect(pair->ends[0], (struct sockaddr *)&pair->names[1], sizeof address));
  }
}

static void turn_pair(struct udp_pair *pair, unsigned index, struct random *random) {
  uint8_t bytes[LONGEST];
  size_t size = 1 + random_below(random, sizeof bytes);
  if (random_below(random, 2)) {
    if (pair->sent - pair->received == QUEUE) return;
    fill_bytes(bytes, size, index, pair->bytes_sent);
    struct sockaddr_in *to = index % 2 ? NULL : &pair->names[1];
    SAME("bytes sent", size, sendto(pair->ends[0], bytes, size, 0, (struct sockaddr *)to, to ? sizeof *to : 0));
    pair->sizes[pair->sent++ % QUEUE] = size;
    pair->bytes_sent += size;
  } else if (pair->sent > pair->received) {
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    // Where processors are busy, the kernel delivers a while after the send.
    struct pollfd arrived = {.fd = pair->ends[1], .events = POLLIN};
    while (poll(&arrived, 1, 5000) == -1 && errno == EINTR) {}
    ssize_t got = MUST(recvfrom(pair->ends[1], bytes, sizeof bytes, 0, (struct sockaddr *)&from, &length));
    SAME("bytes of the datagram", pair->sizes[pair->received++ % QUEUE], got);
    check_bytes("datagram", bytes, (size_t)got, index, pair->bytes_received);
    SAME("its sender's port", pair->names[0].sin_port, from.sin_port);
    SAME("its sender's address", pair->names[0].sin_addr.s_addr, from.sin_addr.s_addr);
    pair->bytes_received += (uint64_t)got;
  } else if (recv(pair->ends[1], bytes, sizeof bytes, 0) != -1) wrong("a datagram that nobody sent");
}

static void turn_udp(void *state, struct random *random) {
  struct udp *all = state;
  for (unsigned index = 0; index < SOCKETS; index++) turn_pair(&all->pairs[index], index, random);
}

const struct kind socket_kinds[] = {
    {"tcp", NULL, sizeof(struct tcp), set_up_tcp, turn_tcp, NULL},
    {"own-tcp", NULL, sizeof(struct tcp), set_up_own_tcp, turn_tcp, NULL},
    {"udp", NULL, sizeof(struct udp), set_up_udp, turn_udp, NULL},
    {0},
};
