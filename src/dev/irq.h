/* SPDX-License-Identifier: Apache-2.0 */
/* An interrupt wire. Its owner raises and lowers it; where it leads is the board's business. */
#ifndef DEV_IRQ_H
#define DEV_IRQ_H

struct irq_line {
	void (*set)(void *opaque, unsigned pin, int level); /* NULL: not connected */
	void *opaque;
	unsigned pin;
};

static inline void irq_set(const struct irq_line *l, int level)
{
	if (l->set)
		l->set(l->opaque, l->pin, level);
}

static inline void irq_pulse(const struct irq_line *l)
{
	irq_set(l, 1);
	irq_set(l, 0);
}

#endif
