// What the network wrappers need of the kernel and Swift's Glibc module does not have: netlink message types,
// attributes and flags (checked against the kernel's headers in clinux_net.c), and socket calls with awkward types.
#ifndef CLINUX_NET_H
#define CLINUX_NET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
  CLX_NETLINK_ROUTE = 0, CLX_NETLINK_SOCK_DIAG = 4,
  CLX_SOL_NETLINK = 270, CLX_NETLINK_CAP_ACK = 10, CLX_NETLINK_EXT_ACK = 11, CLX_NETLINK_GET_STRICT_CHK = 12,
  CLX_NLM_F_REQUEST = 1, CLX_NLM_F_ACK = 4, CLX_NLM_F_DUMP_INTR = 0x10, CLX_NLM_F_CAPPED = 0x100,
  CLX_NLM_F_ACK_TLVS = 0x200, CLX_NLM_F_DUMP = 0x300,
  CLX_NLM_F_REPLACE = 0x100, CLX_NLM_F_EXCL = 0x200, CLX_NLM_F_CREATE = 0x400,
  CLX_NLMSG_ERROR = 2, CLX_NLMSG_DONE = 3, CLX_NLMSGERR_ATTR_MSG = 1, CLX_NLA_F_NESTED = 0x8000,

  CLX_RTM_NEWLINK = 16, CLX_RTM_DELLINK = 17, CLX_RTM_GETLINK = 18, CLX_RTM_SETLINK = 19,
  CLX_RTM_NEWADDR = 20, CLX_RTM_GETADDR = 22, CLX_RTM_NEWROUTE = 24, CLX_RTM_GETROUTE = 26,
  CLX_RTM_NEWNEIGH = 28, CLX_RTM_DELNEIGH = 29, CLX_RTM_GETNEIGH = 30,
  CLX_RTM_NEWQDISC = 36, CLX_RTM_DELQDISC = 37, CLX_RTM_GETQDISC = 38,

  CLX_IFLA_ADDRESS = 1, CLX_IFLA_IFNAME = 3, CLX_IFLA_MTU = 4, CLX_IFLA_LINK = 5, CLX_IFLA_MASTER = 10,
  CLX_IFLA_PROTINFO = 12, CLX_IFLA_OPERSTATE = 16, CLX_IFLA_LINKINFO = 18, CLX_IFLA_NET_NS_FD = 28,
  CLX_IFLA_INFO_KIND = 1, CLX_IFLA_INFO_DATA = 2, CLX_VETH_INFO_PEER = 1,
  CLX_IFLA_BR_AGEING_TIME = 4, CLX_IFLA_BR_STP_STATE = 5, CLX_IFLA_BR_MCAST_SNOOPING = 23,
  CLX_IFLA_BRPORT_STATE = 1, CLX_IFLA_BRPORT_LEARNING = 8, CLX_IFLA_BRPORT_UNICAST_FLOOD = 9,
  CLX_IFLA_BRPORT_PROXYARP = 10,
  CLX_IFLA_BRPORT_MCAST_FLOOD = 27, CLX_IFLA_BRPORT_BCAST_FLOOD = 30,
  CLX_BR_STATE_DISABLED = 0, CLX_BR_STATE_FORWARDING = 3, CLX_IF_OPER_UP = 6,
  CLX_IFF_UP = 1,

  CLX_IFA_ADDRESS = 1, CLX_IFA_LOCAL = 2, CLX_IFA_F_NODAD = 2,
  CLX_RTA_DST = 1, CLX_RTA_OIF = 4, CLX_RTA_GATEWAY = 5,
  CLX_RT_TABLE_MAIN = 254, CLX_RTPROT_STATIC = 4, CLX_RTN_UNICAST = 1,
  CLX_RT_SCOPE_UNIVERSE = 0, CLX_RT_SCOPE_LINK = 253,

  CLX_NDA_DST = 1, CLX_NDA_LLADDR = 2, CLX_NDA_MASTER = 9,
  CLX_NTF_MASTER = 4, CLX_NTF_STICKY = 0x40,
  CLX_NUD_REACHABLE = 2, CLX_NUD_STALE = 4, CLX_NUD_DELAY = 8, CLX_NUD_PROBE = 0x10, CLX_NUD_NOARP = 0x40,
  CLX_NUD_PERMANENT = 0x80,

  CLX_TCA_KIND = 1, CLX_TCA_OPTIONS = 2, CLX_TCA_STATS = 3, CLX_TCA_TBF_PARMS = 1, CLX_TCA_TBF_RATE64 = 4,
  CLX_TCA_TBF_BURST = 6, CLX_TC_LINKLAYER_ETHERNET = 1,

  CLX_TCPDIAG_GETSOCK = 18, CLX_INET_DIAG_MD5SIG = 18, CLX_INET_DIAG_SHUTDOWN = 8,
  CLX_SOCK_DIAG_BY_FAMILY = 20, CLX_INET_DIAG_REQ_V2_SIZE = 56,
  CLX_ETH_P_ARP = 0x0806, CLX_ETH_P_IPV6 = 0x86dd, CLX_SIOCGSKNS = 0x894c,
  CLX_PACKET_QDISC_BYPASS = 20, CLX_SOL_PACKET = 263,
};
extern const uint32_t clx_TC_H_ROOT;

/// struct sockaddr_nl, struct sockaddr_ll and the request headers are laid out by hand in Swift; these are their sizes.
enum {
  CLX_NLMSG_HEADER = 16, CLX_IFINFO_SIZE = 16, CLX_IFADDR_SIZE = 8, CLX_RTMSG_SIZE = 12, CLX_NDMSG_SIZE = 12,
  CLX_TCMSG_SIZE = 20, CLX_TBF_QOPT_SIZE = 36, CLX_INET_DIAG_REQ_SIZE = 60, CLX_INET_DIAG_MSG_SIZE = 72,
};

/// A netlink socket of the calling thread's network namespace, close-on-exec, with short acknowledgements that carry
/// the kernel's own words.
int clx_netlink_open(int protocol);
/// A raw packet socket bound to an interface that receives nothing.
int clx_packet_open(int interface_index);
/// The same, but it receives every frame of the interface; reading never waits.
int clx_packet_open_receiving(int interface_index);
/// The same, and what it sends does not wait in the interface's queue.
int clx_packet_open_bypassing(int interface_index);
/// send and recv without waiting for a signal to pass: retried on EINTR.
ssize_t clx_send(int fd, const void *buffer, size_t size, int flags);
ssize_t clx_recv(int fd, void *buffer, size_t size, int flags);
/// recvmsg; the sizes go in as room and come out as what was used, `message_flags` is its msg_flags.
ssize_t clx_recvmsg(int fd, void *name, uint32_t *name_size, void *buffer, size_t size, void *control,
                    size_t *control_size, int flags, int *message_flags);
/// Has this UDP socket begun a datagram (UDP_CORK, MSG_MORE)? 1, 0 or -errno. Sends nothing.
int clx_udp_is_corked(int fd, int family);
int clx_getsockopt(int fd, int level, int name, void *value, uint32_t *size);
int clx_setsockopt(int fd, int level, int name, const void *value, uint32_t size);

#endif
