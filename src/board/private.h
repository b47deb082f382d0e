/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the board room: how a loader describes what it wants in memory before anything is written.
 *
 * A loader turns a file into a boot_plan: chunks of bytes with the addresses they go to, and the state the
 * first CPU starts in. Addresses come from a boot_space, which hands out RAM and never the same byte
 * twice, so a finished plan fits the machine and can be placed at every reset without failing.
 */
#ifndef BOARD_PRIVATE_H
#define BOARD_PRIVATE_H

#include <pthread.h>
#include "dev/irq.h"
#include "board/boot.h"

/* ---- files (boot-file.c) ---- */

/*
 * Bytes of a file or an unpacked payload; `data` is page-aligned, and zeroed where nothing has been put yet. With a source (boot-source.h)
 * they are there only where boot_bytes_need has been asked for them; the size is right at once.
 */
struct boot_source;
struct boot_bytes {
	uint8_t *data;
	uint64_t size;
	struct boot_source *source; /* NULL: all there */
};
int boot_bytes_alloc(struct boot_bytes *b, uint64_t size, struct err *e);
void boot_bytes_dispose(struct boot_bytes *b);
/* Read all of a file; `what` is the word for it in messages ("kernel", "initrd"). What and path are not copied. */
int boot_bytes_read(struct boot_bytes *b, const char *what, const char *path, uint64_t limit,
		    struct err *e);
int boot_bytes_open(struct boot_bytes *b, const char *what, const char *path, uint64_t limit, struct err *e); /* nothing read yet */
int boot_bytes_need(struct boot_bytes *b, uint64_t at, uint64_t len, struct err *e); /* what is outside of it is left out */
void boot_bytes_drop(struct boot_bytes *b); /* those in place, if they can be had again */
bool boot_bytes_changed(const struct boot_bytes *b); /* the open file has been written to */
int boot_bytes_again(struct boot_bytes *b, uint64_t limit, struct err *e); /* as it is now; b stays as it was on error */

static inline uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}
static inline uint32_t get32(const uint8_t *p)
{
	return get16(p) | (uint32_t)get16(p + 2) << 16;
}
static inline uint64_t get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}
static inline void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}
static inline void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)v);
	put16(p + 2, (uint16_t)(v >> 16));
}
static inline void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)v);
	put32(p + 4, (uint32_t)(v >> 32));
}

/* ---- where things go (boot-plan.c) ---- */

#define BOOT_SPACE_MAX 96
struct boot_space {
	const struct boot_map *map;
	struct {
		uint64_t start, size;
	} taken[BOOT_SPACE_MAX];
	unsigned ntaken;
};
void boot_space_init(struct boot_space *s, const struct boot_map *map);
/* Claim exactly [at, at+size): 0, -EFAULT when not all RAM, -EBUSY when part of it is taken. */
int boot_space_take(struct boot_space *s, uint64_t at, uint64_t size);
/* Claim the lowest or highest fitting place within [min, max); false when there is none. */
bool boot_space_low(struct boot_space *s, uint64_t size, uint64_t align, uint64_t min, uint64_t max,
		    uint64_t *at);
bool boot_space_high(struct boot_space *s, uint64_t size, uint64_t align, uint64_t min, uint64_t max,
		     uint64_t *at);

#define BOOT_CHUNKS 96
struct boot_chunk {
	uint64_t at, len, zero; /* len bytes of data, then so many zeroes */
	const uint8_t *data;
};

enum boot_entry { ENTRY_PROTECTED, ENTRY_LONG, ENTRY_RESET };

struct boot_plan {
	struct boot_chunk chunk[BOOT_CHUNKS];
	unsigned nchunks;
	void *owned[16]; /* freed with the plan */
	unsigned nowned;
	uint8_t *rsdp_slot; /* 8 bytes inside a chunk that take the RSDP's address */
	enum boot_entry entry;
	uint64_t rip, rax, rbx, rsi, cr3;
	uint64_t gdt;
	uint16_t gdt_limit, cs, ds;
	const char *how; /* in words, for the log */
};
void boot_plan_dispose(struct boot_plan *p);
/* Zeroed memory that lives as long as the plan; NULL when there is none. */
void *boot_plan_alloc(struct boot_plan *p, size_t size);
int boot_plan_add(struct boot_plan *p, uint64_t at, const void *data, uint64_t len, uint64_t zero,
		  struct err *e);
/* sources: what chunks may be made of, as far as it is not in memory */
int boot_plan_apply(const struct boot_plan *p, struct boot_bytes *const *sources, unsigned nsources, struct mem *mem,
		    uint64_t acpi_rsdp, struct x86_state *cpu0, struct err *e);

/* ---- the loaders ---- */

#define BOOT_MODULES 32 /* initrd or modules */
struct boot_module {
	struct boot_bytes bytes;
	const char *path, *args;
};

/* What a loader has to work with. */
struct boot_input {
	const char *path; /* of the kernel, for messages */
	const uint8_t *data;
	uint64_t size;
	const char *append; /* never NULL */
	const struct boot_module *modules; /* the initrd is the first */
	unsigned nmodules;
	const struct boot_map *map;
	bool vga; /* there is one, in text mode: kernels are told */
	const char *cache; /* folder of unpacked kernels; NULL: none */
	struct boot_bytes *bytes; /* what data is of, where it may have to be asked for; NULL: all is there */
};

/* unpacked: the ELF file that is in it, if it is to be entered without its unpacker; NULL: as it is. */
int boot_bzimage_plan(struct boot_plan *p, const struct boot_input *in, const struct boot_bytes *unpacked, struct err *e);
int boot_pvh_plan(struct boot_plan *p, const struct boot_input *in, struct err *e);
int boot_multiboot_plan(struct boot_plan *p, const struct boot_input *in, struct err *e);
/* Any kind; unpacked receives a bzImage's payload where it is entered directly. */
int boot_plan_kernel(struct boot_plan *p, const struct boot_input *in, struct boot_bytes *unpacked,
		     struct err *e);

/*
 * The ELF file inside a bzImage, if it holds one we can unpack. 1: none, use its own unpacker. Of an LZ4 payload only what tells that
 * it is one is unpacked now.
 */
int boot_bzimage_unpack(const struct boot_input *in, struct boot_bytes *out, struct err *e);
/* Unpack LZ4 (legacy frame), gzip, xz or zstd into exactly out->size bytes. 1: not one of these. */
int boot_unpack(const uint8_t *data, uint64_t size, struct boot_bytes *out, const char **kind,
		struct err *e);

/* ---- ELF (boot-elf.c) ---- */

#define ELF_SEGMENTS 64
struct elf_file {
	bool is64;
	uint16_t machine;
	uint64_t entry;
	unsigned nsegments;
	struct elf_segment {
		uint32_t type;
		uint64_t offset, vaddr, paddr, filesz, memsz, align;
	} segment[ELF_SEGMENTS];
};
bool elf_is(const uint8_t *data, uint64_t size);
/* Reads and checks all program headers: every segment lies within the file. */
int elf_parse(struct elf_file *f, const uint8_t *data, uint64_t size, struct err *e);
/* Entry of the PVH note; false when the file has none. */
bool elf_pvh_entry(const struct elf_file *f, const uint8_t *data, uint32_t *entry);
/* Will one of the segments be at this physical address? */
/* What elf_parse and elf_pvh_entry look at is in place. */
int elf_need(struct boot_bytes *b, struct err *e);
bool elf_holds(const struct elf_file *f, uint64_t at);
/* Put all loadable segments at their physical addresses into the plan. */
int elf_plan_segments(const struct elf_file *f, const struct boot_input *in, struct boot_plan *p,
		      struct boot_space *space, uint64_t *end, struct err *e);
/* Is there a Multiboot header? Offset in *at. */
bool multiboot_find(const uint8_t *data, uint64_t size, uint32_t *at);

/* Put the initrd (if any) as high as possible below max; 0/0 when there is none. */
int boot_place_initrd(const struct boot_input *in, struct boot_plan *p, struct boot_space *space,
		      uint64_t max, uint64_t *at, uint64_t *size, struct err *e);
/* "N MiB" of RAM in the map, for messages. */
uint64_t boot_map_mib(const struct boot_map *map);

/* ---- firmware (boot-firmware.c) ---- */
/* rom_offset: RAM offset of its last 128 KiB; start: where it begins */
int boot_firmware_map(struct mem *mem, const char *path, uint64_t *rom_offset, uint64_t *start, struct err *e);

/* ---- disks (pc-disks.c) ---- */

struct device;
struct device_env;
struct ide_drive_config;
struct pci_bus;
struct virtio;

/* Where a disk of the configuration went. */
struct pc_drive {
	struct block *block; /* NULL: no medium */
	int ide;	     /* channel * 2 + unit; -1: not there */
	int ahci;	     /* port; -1: not there */
	int slot;	     /* virtio: of the PCI bus; 0: not there */
	struct virtio *virtio; /* NULL: on IDE */
	bool removed;
	struct pc_disks *disks;
};
struct pc_disks {
	const struct pc_config *config;
	struct pc_disk disk[PC_DISKS]; /* of the configuration, and those that came later */
	unsigned count;
	void (*error_fn)(void *opaque, unsigned n, int error, bool write); /* pc_disks_on_error */
	void *error_opaque;
	struct pc_drive drive[PC_DISKS];
	struct device *ide, *ahci;
	int ahci_slot;
	const struct block_files *files; /* pc_bring */
};
/* Opens every back-end and gives each a place, before anything is wired. */
int pc_disks_open(struct pc_disks *d, const struct pc_config *config, struct err *e);
void pc_disks_close(struct pc_disks *d); /* after the devices are gone */
void pc_disk_watch(struct pc_drive *d); /* after its medium has changed: errors are told */
/* The IDE controller with what is on it. NULL in d->ide when nothing is. */
int pc_disks_ide(struct pc_disks *d, struct pci_bus *bus, struct device_env *env, const struct irq_line irq[2],
		 struct err *e);
/* The same for AHCI, d->ahci. */
int pc_disks_ahci(struct pc_disks *d, struct pci_bus *bus, struct device_env *env, struct err *e);
/* Another medium for a CD-ROM drive, or none; what was there is closed. */
int pc_disks_change(struct pc_disks *d, struct pc_drive *drive, const char *spec, bool force, struct err *e);
/* Virtio devices in memory: between IOAPIC and HPET, each with an ISA interrupt nobody else uses. */
#define VIRTIO_MMIO_MAX 3
#define VIRTIO_MMIO_BASE 0xfec80000u
#define VIRTIO_MMIO_STEP 0x1000u
#define VIRTIO_MMIO_IRQ(n) (5u + (n)) /* 5, 6, 7 */
unsigned pc_disks_mmio(const struct pc_config *config); /* how many there are */

/* ---- cards that come and go (pc-plug.c) */

#define PC_SLOTS 32
struct pc_gone;
struct pc_plug {
	struct pc_card {
		bool is_net;
		unsigned n; /* of the list of disks or cards */
		struct device *device, *own; /* NULL: nothing here that could go */
	} card[PC_SLOTS];
	struct device *controller;
	pthread_mutex_t lock; /* covers what follows */
	struct pc_gone *gone; /* and not yet freed */
	void (*fn)(void *opaque);
	void *opaque;
};
/* Network cards (pc-net.c): back-ends, opened in order. */
struct pc_nets {
	struct net_link *link[PC_NETS];
	enum net_model model[PC_NETS];
	char id[PC_NETS][PC_ID];
	unsigned slot[PC_NETS];
	bool user[PC_NETS]; /* a user network */
	unsigned count;
	const char *machine; /* its name: cards' addresses come from it */
};

/* What is on virtio, disks and others, each a PCI function. `add` puts a device on the machine's list. */
struct virtio_board {
	struct pci_bus *pci;
	struct device_env *env;
	void (*add)(void *opaque, struct device *d);
	void *opaque;
	void (*leave)(void *opaque); /* a terminal's Ctrl-A X */
	struct irq_line irq[VIRTIO_MMIO_MAX];
	unsigned mmio; /* so far */
	unsigned cpus, count; /* count: devices so far; those with a slot of their own have it in their number instead */
	uint64_t pmem_start; /* where files are mapped, one after another */
	struct chr *chr[PC_PORTS];
	struct virtio *console, *balloon, *tablet, *keyboard; /* NULL: none */
	struct pc_nets *nets;
	struct pc_plug *plug;
};
struct net_link *pc_net_open(struct pc_nets *nets, const struct pc_config *config, const struct net_config *card, unsigned n,
			     struct evloop *loop, struct err *e);
struct device *pc_net_e1000(struct pc_nets *nets, struct virtio_board *b, unsigned number, unsigned n, int devfn, struct err *e);
struct virtio *pc_net_virtio(struct pc_nets *nets, const struct virtio_board *b, unsigned n, unsigned number, struct err *e);
/* One device, at the slot given (0: the next free one), on the machine's list. */
int pc_virtio_net(struct virtio_board *b, unsigned n, unsigned slot, struct err *e);
int pc_virtio_disk(struct pc_disks *d, struct virtio_board *b, unsigned n, struct err *e);
int pc_id_check(const char *id, struct err *e);
int pc_drive_open(struct pc_disks *d, unsigned n, struct err *e);
void pc_nets_close(struct pc_nets *nets); /* after the devices are gone */
int pc_virtio(struct pc_disks *d, struct virtio_board *b, struct err *e);
/* OpenFirmware paths of what can be started, in the order asked for. */
void pc_disks_boot_order(const struct pc_disks *d, char *text, size_t size);

void pc_plug_note(struct pc_plug *p, unsigned slot, bool is_net, unsigned n, struct device *device, struct device *own);
uint32_t pc_plug_reserved(const struct pc_config *config); /* slots that are somebody's */
void pc_plug_dispose(struct pc_plug *p); /* what has gone is freed; the machine's event loop has stopped */
struct vm;
struct pc_plug_place {
	struct pc_plug *plug;
	struct pc_disks *disks;
	struct pc_nets *nets;
	struct virtio_board *virtio;
	struct vm *vm;
	const struct pc_config *config;
};
struct pc_plugged;
int pc_plug_add_disk(struct pc_plug_place *at, const char *spec, struct pc_plugged *out, struct err *e);
int pc_plug_add_net(struct pc_plug_place *at, const char *spec, struct pc_plugged *out, struct err *e);
int pc_plug_ask(struct pc_plug_place *at, const char *id, struct err *e);
bool pc_plug_free_one(struct pc_plug *p, struct evloop *loop, char id[PC_ID]);
/* All CPUs are stopped: what is in the slot leaves the machine. */
void pc_plug_gone(struct pc_plug *p, struct pc_disks *d, struct pc_nets *nets, struct vm *vm, struct pci_bus *bus, unsigned slot);
void pc_disk_name(const struct pc_disks *d, unsigned n, char name[PC_ID]);
void pc_net_name(const struct pc_nets *nets, unsigned n, char name[PC_ID]);

struct acpi_config;
struct smbios_config;
/* What the firmware is told (firmware-config.c); lives as long as the device. */
struct firmware_config {
	struct device *device;
	struct acpi_config *acpi;
	const struct smbios_config *smbios;
	void (*update)(void *opaque, struct acpi_config *acpi); /* what the firmware has changed since */
	void *opaque;
	uint64_t memory;
	bool menu, display;
	unsigned menu_wait_ms;
	char boot_order[1024]; /* OpenFirmware paths, one a line, best first */
};
int firmware_config_fill(struct firmware_config *c, struct err *e);

/* ---- ACPI (acpi.c, aml.c) ---- */

struct acpi_config {
	unsigned cpus;
	const char *const *serial; /* NULL: absent */
	unsigned nserial;
	uint16_t pm_base;
	bool hpet, vga;
	uint8_t pirq[4]; /* ISA interrupts of PIRQ A to D; IOAPIC pins are 16 to 19 */
	unsigned nmmio; /* virtio devices at VIRTIO_MMIO_BASE, see below */
	uint64_t pci_low, pci_low_end, pci_high, pci_high_end; /* windows of memory */
};
#define ACPI_BASE 0xe0000ull /* where the tables go: the BIOS area, reserved in E820 */
#define ACPI_SIZE 0x10000u
/* Build all tables for address ACPI_BASE into buf of ACPI_SIZE bytes; gives the RSDP's address. */
int acpi_build(uint8_t *buf, const struct acpi_config *config, uint64_t *rsdp, struct err *e);

/* The same for firmware that puts them where it likes: addresses count from the tables' start and are listed. */
#define RSDP_SIZE 36
struct acpi_links {
	uint32_t size;
	struct acpi_pointer {
		uint32_t at, width;
	} pointer[24];
	unsigned npointers;
	struct acpi_sum {
		uint32_t at, size; /* the table; its checksum is byte 9 */
	} sum[8];
	unsigned nsums;
};
int acpi_build_movable(uint8_t *buf, uint8_t rsdp[RSDP_SIZE], struct acpi_links *links, const struct acpi_config *config,
		       struct err *e);

/* ---- SMBIOS (smbios.c) ---- */

struct smbios_config {
	unsigned cpus;
	unsigned cores, threads; /* of a socket, of a core */
	uint64_t memory;
	uint8_t uuid[16];
	bool uefi;
};
#define SMBIOS_ANCHOR 31
#define SMBIOS_SIZE 0x4000u
#define SMBIOS_BASE 0xf0000ull /* of the anchor, for kernels without firmware; the tables follow 32 bytes later */
/* Tables for address `at` into SMBIOS_SIZE bytes. */
int smbios_build(uint8_t *tables, uint8_t anchor[SMBIOS_ANCHOR], uint32_t *size, uint32_t at,
		 const struct smbios_config *c, struct err *e);

#define AML_MAX 0x8000
struct aml {
	uint8_t data[AML_MAX];
	unsigned len;
	bool overflow;
};
void aml_byte(struct aml *a, uint8_t v);
void aml_bytes(struct aml *a, const void *data, unsigned n);
void aml_name(struct aml *a, const char *name); /* "\\_S5_" or "CPU0" */
void aml_integer(struct aml *a, uint64_t v);
void aml_string(struct aml *a, const char *s);
void aml_eisaid(struct aml *a, const char *id); /* "PNP0501" */
/* What is written between begin and end is the package's body; begin gives the mark for end. */
unsigned aml_begin(struct aml *a);
void aml_end(struct aml *a, unsigned mark);
void aml_name_integer(struct aml *a, const char *name, uint64_t v); /* Name (X, v) */
void aml_name_eisaid(struct aml *a, const char *name, const char *id);
unsigned aml_scope(struct aml *a, const char *name);  /* end with aml_end */
unsigned aml_device(struct aml *a, const char *name); /* end with aml_end */
unsigned aml_method(struct aml *a, const char *name, unsigned args); /* end with aml_end */
void aml_region_io(struct aml *a, const char *name, uint16_t first, uint8_t count);
void aml_field32(struct aml *a, const char *region, const char *const *names, unsigned count); /* of 32 bits each, one after another */
unsigned aml_if(struct aml *a, const char *name); /* the name's value is not zero; end with aml_end */
void aml_return_name(struct aml *a, const char *name);
unsigned aml_name_package(struct aml *a, const char *name, uint8_t elements); /* end with aml_end */
unsigned aml_package(struct aml *a, uint8_t elements); /* end with aml_end */
/* Resource templates: Name (_CRS, Buffer { ... }) around io and irq descriptors. */
struct aml_crs {
	uint8_t data[512];
	unsigned len;
};
void aml_crs_io(struct aml_crs *c, uint16_t first, uint8_t count);
void aml_crs_irq(struct aml_crs *c, unsigned irq);
/* A window a bridge passes on: kind 0 memory, 1 I/O, 2 bus numbers; `bytes` of its numbers: 2, 4, 8. */
void aml_crs_window(struct aml_crs *c, unsigned bytes, uint8_t kind, uint8_t flags, uint64_t first, uint64_t last);
void aml_crs_memory(struct aml_crs *c, uint32_t first, uint32_t size); /* fixed, 32 bit */
/* acpi-pci.c: the host bridge with its windows and the routing of interrupts */
void dsdt_pci(struct aml *a, const struct acpi_config *config);
void aml_name_crs(struct aml *a, const struct aml_crs *c);

#endif
