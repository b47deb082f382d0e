/* SPDX-License-Identifier: Apache-2.0 */
/* The PC board: every device created and wired in visible order, then the boot state. */
#ifndef BOARD_PC_H
#define BOARD_PC_H

#include "backend/chr.h"
#include "backend/net.h"
#include "vm/vm.h"

struct pc_module {
	const char *path, *args;
};

enum pc_disk_bus { PC_DISK_IDE, PC_DISK_AHCI, PC_DISK_VIRTIO, PC_DISK_MMIO /* virtio without PCI */ };

#define PC_DISKS 16
#define PC_ID 32
#define PC_REMOVED "removed" /* a disk or card in whose place nothing is any more */
struct pc_disk {
	const char *spec; /* of the back-end, see backend/block.h; NULL: an empty CD-ROM drive */
	enum pc_disk_bus bus;
	bool cdrom;
	unsigned queues;       /* virtio: 0 is one for each CPU, up to 4 */
	char serial[21];       /* virtio: empty is a default one */
	char id[PC_ID];	       /* what the control socket calls it; empty: disk0, disk1, ... */
	unsigned slot;	       /* of the PCI bus (virtio); 0: the next free one */
	bool removed;	       /* there was one, and its place is kept: a saved machine's */
};
/*
 * "[bus=...,][serial=...,][queues=...,][id=...,][slot=...,]" and the back-end's own in any order, or "removed". `spec` is changed:
 * the back-end's part stays, and out->spec is it.
 */
int pc_disk_parse(struct pc_disk *out, char *spec, struct err *e);

/* What the firmware tries, in this order; each kind once. */
enum pc_boot_kind { PC_BOOT_NONE, PC_BOOT_DISK, PC_BOOT_CDROM, PC_BOOT_NETWORK };

#define PC_PORTS 8
struct pc_port { /* of the virtio console */
	const char *name;  /* NULL: a console */
	const char *where; /* see chr.h */
};

#define PC_SHARES 8
struct pc_share { /* a folder shared with the guest (virtio) */
	const char *path, *tag;
	bool read_only;
};

#define PC_PMEMS 8
#define PC_PMEM_ALIGN (2ull << 20) /* what the guest wants of place and size */
struct pc_pmem { /* a file as read-only memory */
	const char *path;
	uint64_t length, size; /* of the file; of the memory: a multiple of PC_PMEM_ALIGN */
};

#define PC_NETS 8
#define PC_FORWARDS 32

struct pc_config {
	struct net_config net[PC_NETS];
	unsigned nnets;
	struct net_forward forward[PC_FORWARDS]; /* of the first card with a user network */
	unsigned nforwards;
	int (*net_join)(void *opaque, const char *network, int dialed, struct net_hello *hello, struct err *e); /* see net.h */
	void *net_join_opaque;
	const char *kernel, *initrd, *append, *firmware;
	/* Flash for the firmware's variables, below it: the file, and what it is made from; both NULL: there is none. */
	const char *firmware_vars, *firmware_vars_initial;
	const struct pc_module *modules;
	unsigned nmodules;
	const char *serial[4]; /* NULL: absent; see chr.h */
	unsigned nserial;
	uint8_t uuid[16];      /* the machine's, as SMBIOS has it; all zero: a new one */
	int exit_port;         /* -1: none */
	const char *vga_bios; /* the display adapter's firmware, a file; NULL: there is no display adapter */
	const char *display;  /* where the screen is shown: "none" (or NULL), "text", "vnc[:[ADDRESS:]PORT]" */
	const char *layout; /* keyboard layout of VNC clients and guest, see display/layout.h; NULL: American */
	const char *vnc_password, *vnc_tls; /* files: the password; certificate and key (NULL: a new one) */
	const char *debug_console; /* where ports 0xe9 and 0x402 write to; NULL: nowhere */
	struct pc_disk disk[PC_DISKS];
	unsigned ndisks;
	enum pc_boot_kind boot[3]; /* PC_BOOT_NONE first: disks, then CD-ROMs */
	bool rng, balloon, tablet, keyboard; /* virtio devices */
	struct pc_pmem pmem[PC_PMEMS];
	unsigned npmems;
	struct pc_share share[PC_SHARES];
	unsigned nshares;
	const char *vsock;     /* virtio sockets: path of the host's side; NULL: none */
	uint32_t vsock_cid;
	struct pc_port port[PC_PORTS];
	unsigned nports;
	bool no_agent;         /* a machine with a folder has a port for the guest's agent otherwise */
	bool boot_menu;        /* the firmware is to ask what to start */
	unsigned boot_wait_ms; /* how long it waits for a key */
	const char *kernel_cache; /* folder of unpacked kernels, to be made in a folder that is there; NULL: none */
	bool restoring;        /* the state comes from a file: no kernel is needed until the guest reboots */
	void (*save)(void *opaque); /* Ctrl-A S was typed; may be NULL */
	void *save_opaque;
};

/*
 * The board belongs to the vm as the first of its devices: vm_destroy takes it down last, after everything
 * that uses its back-ends; after a failed pc_create too.
 */
struct pc;
struct screen;
int pc_create(struct pc **out, struct vm *vm, const struct pc_config *config, struct err *e);
/* The power button is pressed. Any thread. */
void pc_power_button(struct pc *pc);
/* What the display adapter shows; NULL: there is none. */
const struct screen *pc_screen(struct pc *pc);
/* A key of the machine's keyboard, KEY_* of <linux/input-event-codes.h>. Any thread. */
void pc_key(struct pc *pc, unsigned code, bool down);
/* All of these or none; errors as of i8042_keys(). */
struct key_event;
int pc_keys(struct pc *pc, const struct key_event *stroke, unsigned n);

/*
 * The pointer, any thread. It is at (x, y), of 0 to 0x7fff: false if the machine has no tablet, or its guest no driver for one. Or it
 * has moved, right and down positive. wheel: down positive; buttons as they are now: 1 left, 2 right, 4 middle, 8 side, 16
 * extra.
 */
bool pc_pointer_at(struct pc *pc, unsigned x, unsigned y, int wheel, unsigned buttons);
void pc_pointer_moved(struct pc *pc, int dx, int dy, int wheel, unsigned buttons);

struct device *pc_keyboard(struct pc *pc); /* see dev/i8042.h */
/*
 * Another medium for drive n (as pc_disk_view counts), a CD-ROM drive; spec NULL: none. Any thread but a vCPU's. -EBUSY: the
 * guest has locked the drive, and `force` is not set.
 */
/* Files for the disks and media that the same thread adds next, looked at before the host's; NULL: no more. */
struct block_files;
void pc_bring(struct pc *pc, const struct block_files *files);
int pc_change_medium(struct pc *pc, unsigned n, const char *spec, bool force, struct err *e);

/* Disks and CD-ROM drives, in the order of the configuration; only the thread that changes media looks. */
struct block;
struct pc_disk_view {
	char name[PC_ID]; /* its id, or disk0, disk1, ... */
	bool present; /* false: it has been removed */
	struct block *block; /* NULL: no medium */
	bool cdrom;
	enum pc_disk_bus bus;
};
bool pc_disk_view(struct pc *pc, unsigned n, struct pc_disk_view *out); /* false: there are no more */

/* Pauses the machine meanwhile. Any thread but a vCPU's. */
int pc_disk_resize(struct pc *pc, unsigned n, uint64_t size, struct err *e);
/*
 * `fn` is called when disk n has failed and its error policy wants the machine paused: any thread, a lock held; it tells
 * another thread. NULL: nobody is to be told (any more), errors go to the guest. Once this returns the old one is not called.
 */
void pc_disks_on_error(struct pc *pc, void (*fn)(void *opaque, unsigned n, int error, bool write), void *opaque);
bool pc_disks_hold(struct pc *pc); /* some disk has such a policy */

/* Network cards, in the order of the configuration. Any thread. */
struct pc_net_view {
	char name[PC_ID]; /* its id, or net0, net1, ... */
	bool present; /* false: it has been removed */
	const char *kind, *model;
	uint8_t mac[6];
	bool up;
	char addresses[128]; /* the guest's, as far as they are known; blanks between */
	struct net_stats stats;
	struct net_limits limits;
};
bool pc_net_view(struct pc *pc, unsigned n, struct pc_net_view *out); /* false: there are no more */
struct net_link *pc_net_named(struct pc *pc, const char *name, struct err *e); /* NULL: there is none */

/*
 * Cards that come and go while the machine is there, paused or not (it is paused meanwhile). One thread at a time, neither a vCPU's
 * nor the event loop's. What came is at a slot of its own; `text` is how to describe it so that a machine made anew has it
 * in the same place, with the same name and serial number.
 */
struct pc_plugged {
	char id[PC_ID];
	unsigned slot;
	char *text; /* the caller frees it */
};
int pc_plug_disk(struct pc *pc, const char *spec, struct pc_plugged *out, struct err *e);
int pc_plug_net(struct pc *pc, const char *spec, struct pc_plugged *out, struct err *e);
/* The guest is asked to let go; pc_reap says when it has (a reset makes it). A disk on virtio, or a network card. */
int pc_unplug(struct pc *pc, const char *id, struct err *e);
/* `fn` is called when pc_reap has something to do: with all CPUs stopped, it tells another thread. NULL: nobody is told. */
void pc_on_gone(struct pc *pc, void (*fn)(void *opaque), void *opaque);
/* Frees one card that has gone, closing what was behind it, and says which it was; false: there is none. */
bool pc_reap(struct pc *pc, char id[PC_ID]);

/* A program of the guest has the virtio port of this name open. */
bool pc_port_open(struct pc *pc, const char *name);

/* The balloon: bytes the guest is to have. -ENODEV: there is none. */
struct virtio_balloon_info;
int pc_balloon_set(struct pc *pc, uint64_t memory, struct err *e);
void pc_balloon_on_change(struct pc *pc, void (*fn)(void *opaque, uint64_t given), void *opaque); /* virtio_balloon_on_change */
int pc_balloon_get(struct pc *pc, struct virtio_balloon_info *info, struct err *e);

/* Physical layout */
#define PC_BASE_RAM_END 0xa0000ull   /* then the VGA window, where nothing is */
#define PC_BIOS_AREA 0xc0000ull      /* RAM again: option ROMs, ACPI tables */
#define PC_LOW_RAM_END 0xc0000000ull /* RAM above goes to 4 GiB */
#define PC_HIGH_RAM 0x100000000ull
#define PC_IOAPIC 0xfec00000ull
#define PC_LAPIC 0xfee00000ull

#endif
