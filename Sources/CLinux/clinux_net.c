// See include/clinux_net.h.
#define _GNU_SOURCE
#include "clinux_net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_bridge.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/inet_diag.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#define RESULT(call) ({ long r_ = (call); r_ < 0 ? -(long)errno : r_; })

/// include/linux/socket.h of the kernel itself.
#define MSG_PROBE_ 0x10

#define SAME(name) _Static_assert((int)CLX_##name == (int)(name), #name)
SAME(NETLINK_ROUTE); SAME(NETLINK_SOCK_DIAG); SAME(SOL_NETLINK); SAME(NETLINK_CAP_ACK); SAME(NETLINK_EXT_ACK);
SAME(NETLINK_GET_STRICT_CHK); SAME(NLM_F_REQUEST); SAME(NLM_F_ACK); SAME(NLM_F_DUMP_INTR); SAME(NLM_F_CAPPED);
SAME(NLM_F_ACK_TLVS); SAME(NLM_F_DUMP); SAME(NLM_F_REPLACE); SAME(NLM_F_EXCL); SAME(NLM_F_CREATE);
SAME(NLMSG_ERROR); SAME(NLMSG_DONE); SAME(NLMSGERR_ATTR_MSG); SAME(NLA_F_NESTED);
SAME(RTM_NEWLINK); SAME(RTM_DELLINK); SAME(RTM_GETLINK); SAME(RTM_SETLINK); SAME(RTM_NEWADDR); SAME(RTM_GETADDR);
SAME(RTM_NEWROUTE); SAME(RTM_GETROUTE); SAME(RTM_NEWNEIGH); SAME(RTM_DELNEIGH); SAME(RTM_GETNEIGH);
SAME(RTM_NEWQDISC); SAME(RTM_DELQDISC); SAME(RTM_GETQDISC);
SAME(IFLA_ADDRESS); SAME(IFLA_IFNAME); SAME(IFLA_MTU); SAME(IFLA_LINK); SAME(IFLA_MASTER); SAME(IFLA_PROTINFO);
SAME(IFLA_OPERSTATE); SAME(IFLA_LINKINFO); SAME(IFLA_NET_NS_FD); SAME(IFLA_INFO_KIND); SAME(IFLA_INFO_DATA);
SAME(VETH_INFO_PEER); SAME(IFLA_BR_AGEING_TIME); SAME(IFLA_BR_STP_STATE); SAME(IFLA_BR_MCAST_SNOOPING);
SAME(IFLA_BRPORT_STATE); SAME(IFLA_BRPORT_LEARNING); SAME(IFLA_BRPORT_UNICAST_FLOOD); SAME(IFLA_BRPORT_PROXYARP);
SAME(IFLA_BRPORT_MCAST_FLOOD); SAME(IFLA_BRPORT_BCAST_FLOOD); SAME(BR_STATE_DISABLED); SAME(BR_STATE_FORWARDING);
SAME(IFF_UP); SAME(IFA_ADDRESS); SAME(IFA_LOCAL); SAME(IFA_F_NODAD); SAME(RTA_DST); SAME(RTA_OIF);
SAME(RTA_GATEWAY); SAME(RT_TABLE_MAIN); SAME(RTPROT_STATIC); SAME(RTN_UNICAST); SAME(RT_SCOPE_UNIVERSE);
SAME(RT_SCOPE_LINK); SAME(NDA_DST); SAME(NDA_LLADDR); SAME(NDA_MASTER); SAME(NTF_MASTER); SAME(NTF_STICKY);
SAME(NUD_REACHABLE); SAME(NUD_STALE); SAME(NUD_DELAY); SAME(NUD_PROBE); SAME(NUD_NOARP); SAME(NUD_PERMANENT);
SAME(TCA_KIND); SAME(TCA_OPTIONS); SAME(TCA_STATS); SAME(TCA_TBF_PARMS); SAME(TCA_TBF_RATE64); SAME(TCA_TBF_BURST);
SAME(TC_LINKLAYER_ETHERNET); SAME(TCPDIAG_GETSOCK); SAME(INET_DIAG_MD5SIG); SAME(ETH_P_ARP); SAME(ETH_P_IPV6);
SAME(SIOCGSKNS); SAME(PACKET_QDISC_BYPASS); SAME(SOL_PACKET);
const uint32_t clx_TC_H_ROOT = TC_H_ROOT;

_Static_assert(NLMSG_HDRLEN == CLX_NLMSG_HEADER, "struct nlmsghdr");
_Static_assert(sizeof(struct ifinfomsg) == CLX_IFINFO_SIZE, "struct ifinfomsg");
_Static_assert(sizeof(struct ifaddrmsg) == CLX_IFADDR_SIZE, "struct ifaddrmsg");
_Static_assert(sizeof(struct rtmsg) == CLX_RTMSG_SIZE, "struct rtmsg");
_Static_assert(sizeof(struct ndmsg) == CLX_NDMSG_SIZE, "struct ndmsg");
_Static_assert(sizeof(struct tcmsg) == CLX_TCMSG_SIZE, "struct tcmsg");
_Static_assert(sizeof(struct tc_tbf_qopt) == CLX_TBF_QOPT_SIZE, "struct tc_tbf_qopt");
_Static_assert(sizeof(struct inet_diag_req) == CLX_INET_DIAG_REQ_SIZE, "struct inet_diag_req");
_Static_assert(sizeof(struct inet_diag_req_v2) == CLX_INET_DIAG_REQ_V2_SIZE, "struct inet_diag_req_v2");
_Static_assert(INET_DIAG_SHUTDOWN == CLX_INET_DIAG_SHUTDOWN, "INET_DIAG_SHUTDOWN");
_Static_assert(sizeof(struct inet_diag_msg) == CLX_INET_DIAG_MSG_SIZE, "struct inet_diag_msg");
_Static_assert(offsetof(struct tc_stats, qlen) == 28 && offsetof(struct tc_stats, backlog) == 32, "struct tc_stats");

int clx_netlink_open(int protocol) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  if (fd < 0) return -errno;
  int on = 1;
  setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  struct sockaddr_nl address = {.nl_family = AF_NETLINK};
  if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}

static int packet_open(int interface_index, uint16_t protocol) {
  // Protocol 0 until it is bound: no frame of another interface comes.
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK * (protocol != 0), 0);
  if (fd < 0) return -errno;
  struct sockaddr_ll address = {
      .sll_family = AF_PACKET, .sll_ifindex = interface_index, .sll_protocol = htons(protocol)};
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}

int clx_packet_open(int interface_index) { return packet_open(interface_index, 0); }
int clx_packet_open_receiving(int interface_index) { return packet_open(interface_index, ETH_P_ALL); }

int clx_packet_open_bypassing(int interface_index) {
  int fd = clx_packet_open(interface_index), on = 1;
  if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on) == 0) return fd;
  int error = errno;
  close(fd);
  return -error;
}

ssize_t clx_send(int fd, const void *buffer, size_t size, int flags) {
  ssize_t n;
  do n = send(fd, buffer, size, flags | MSG_NOSIGNAL); while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}

ssize_t clx_recv(int fd, void *buffer, size_t size, int flags) {
  ssize_t n;
  do n = recv(fd, buffer, size, flags); while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}

ssize_t clx_recvmsg(int fd, void *name, uint32_t *name_size, void *buffer, size_t size, void *control,
                    size_t *control_size, int flags, int *message_flags) {
  struct iovec part = {.iov_base = buffer, .iov_len = size};
  struct msghdr message = {.msg_name = name, .msg_namelen = *name_size, .msg_iov = &part, .msg_iovlen = 1,
                           .msg_control = control, .msg_controllen = *control_size};
  ssize_t n;
  do n = recvmsg(fd, &message, flags); while (n < 0 && errno == EINTR);
  if (n < 0) return -errno;
  *name_size = message.msg_namelen;
  *control_size = message.msg_controllen;
  *message_flags = message.msg_flags;
  return n;
}

// A probe (MSG_PROBE) to an address that cannot be: it fails, unless a datagram has been begun, whose own address counts.
int clx_udp_is_corked(int fd, int family) {
  struct sockaddr_in other = {.sin_family = AF_INET6};
  struct sockaddr_in6 nobody = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  struct msghdr message = {.msg_name = &other, .msg_namelen = sizeof other};
  if (family == AF_INET6) message.msg_name = &nobody, message.msg_namelen = sizeof nobody;
  if (sendmsg(fd, &message, MSG_PROBE_ | MSG_MORE | MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return 1;
  return errno == EAFNOSUPPORT || errno == EINVAL ? 0 : -errno;
}

int clx_getsockopt(int fd, int level, int name, void *value, uint32_t *size) {
  return RESULT(getsockopt(fd, level, name, value, size));
}

int clx_setsockopt(int fd, int level, int name, const void *value, uint32_t size) {
  return RESULT(setsockopt(fd, level, name, value, size));
}
