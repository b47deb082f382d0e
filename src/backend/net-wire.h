/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine and the switch say to each other, over a socket that keeps messages apart (UNIX, SOCK_SEQPACKET): first
 * a greeting, one side's struct net_hello and the other's struct net_welcome; then frames, each a struct net_record and the bytes,
 * one after the other without gaps: as many small ones in a message as there are (most of what a frame costs is the message).
 * Both ends are on one host and of one version, so fields are the host's own; both ends distrust them all the same.
 */
#ifndef BACKEND_NET_WIRE_H
#define BACKEND_NET_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#define NET_WIRE_MAGIC 0x6f737732u /* "osw2" */
#define NET_WIRE_FRAME 65550u      /* longest: 64 KiB of packet and its Ethernet header */

enum net_wire_gso { NET_GSO_NONE, NET_GSO_TCP4, NET_GSO_TCP6, NET_GSO_UDP };
enum net_wire_flag {
	NET_WIRE_CSUM = 1,  /* the checksum from csum_start on is to be put at csum_start + csum_offset */
	NET_WIRE_VALID = 2, /* checksums have been verified, or need not be */
	NET_WIRE_ECN = 4,
};

struct net_wire {
	uint8_t flags, gso;
	uint16_t hdr_len, gso_size, csum_start, csum_offset;
};

struct net_record {
	uint32_t len; /* of the frame that follows */
	uint16_t pad;
	struct net_wire wire;
};

#define NET_WIRE_MESSAGE (NET_WIRE_FRAME + sizeof(struct net_record)) /* longest */
#define NET_WIRE_SMALL 4096u /* longer ones do not wait for company */

enum net_hello_kind { NET_HELLO_MEMBER = 1, NET_HELLO_CONTROL, NET_HELLO_CAPTURE };

#define NET_VLANS 4095
#define NET_HELLO_ADDRESSES 8

struct net_hello {
	uint32_t magic;
	uint8_t kind;
	uint8_t mac[6];     /* of the card; all zero: any one (only where spoofing is allowed) */
	uint8_t trunk;      /* tagged frames of `vlans` pass; otherwise none do */
	uint16_t vlan;      /* of untagged frames; 0: the network's own */
	uint16_t pad;
	uint64_t limit_in, limit_out; /* the switch's, bytes a second from and to the member; 0: none (a machine's own limits hold in its process) */
	uint8_t addresses, v6;        /* how many follow; bit n of v6: the nth is IPv6 */
	uint8_t address[NET_HELLO_ADDRESSES][16];
	int32_t capture_port;         /* NET_HELLO_CAPTURE: -1 all */
	char name[64];                /* of the machine; ends with a zero */
	uint8_t vlans[512];           /* bit n: VLAN n may pass a trunk */
};

struct net_welcome {
	uint32_t magic;
	int32_t error; /* 0, or a positive errno and why */
	char text[200];
};

/* Before each frame of a capture. */
struct net_captured {
	uint64_t time; /* ns since 1970 */
	uint32_t port, length, lost; /* whole length; frames lost before this one */
	uint8_t out, pad[3];
};

#endif
