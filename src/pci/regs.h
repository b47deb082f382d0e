/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of the PCI specification (3.0, chapters 6 and 7) that more than one file needs. */
#ifndef PCI_REGS_H
#define PCI_REGS_H

#define PCI_VENDOR 0x00
#define PCI_DEVICE 0x02
#define PCI_COMMAND 0x04
#define PCI_COMMAND_IO 0x0001
#define PCI_COMMAND_MEMORY 0x0002
#define PCI_COMMAND_MASTER 0x0004
#define PCI_COMMAND_INTX_OFF 0x0400
#define PCI_STATUS 0x06
#define PCI_STATUS_INTX 0x08
#define PCI_STATUS_CAPABILITIES 0x10
#define PCI_REVISION 0x08
#define PCI_CLASS 0x09
#define PCI_HEADER_TYPE 0x0e
#define PCI_BAR(n) (0x10 + 4 * (n))
#define PCI_SUBSYSTEM_VENDOR 0x2c
#define PCI_SUBSYSTEM 0x2e
#define PCI_ROM 0x30
#define PCI_CAPABILITIES 0x34
#define PCI_INTERRUPT_LINE 0x3c
#define PCI_INTERRUPT_PIN 0x3d
#define PCI_HEADER_SIZE 0x40

#define PCI_CAP_MSI 0x05
#define PCI_CAP_MSIX 0x11

#endif
