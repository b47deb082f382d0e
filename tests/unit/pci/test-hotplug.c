/* SPDX-License-Identifier: Apache-2.0 */
/* The hot-plug controller's registers: what is read clears, only what was asked back can be ejected, a reset takes it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "base/err.h"
#include "pci/hotplug.h"

struct rig {
	struct ports *ports;
	struct device *d;
	unsigned events;
	uint32_t gone;
};

static void event(void *opaque)
{
	((struct rig *)opaque)->events++;
}

static void gone(void *opaque, unsigned slot)
{
	((struct rig *)opaque)->gone |= (uint32_t)BIT(slot);
}

static int setup(void **state)
{
	struct rig *r = test_calloc(1, sizeof(*r));
	struct pci_hotplug_config c = { event, gone, r };
	struct device_env env = { 0 };
	struct err e = { 0 };

	r->ports = ports_create();
	env.ports = r->ports;
	r->d = pci_hotplug_create(&env, &c, &e);
	assert_non_null(r->d);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	struct rig *r = *state;

	r->d->ops->destroy(r->d);
	ports_destroy(r->ports);
	test_free(r);
	return 0;
}

static uint32_t in(struct rig *r, unsigned at)
{
	return ports_in(r->ports, (uint16_t)(PCI_HOTPLUG_PORT + at), 4);
}

static void out(struct rig *r, unsigned at, uint32_t v)
{
	ports_out(r->ports, (uint16_t)(PCI_HOTPLUG_PORT + at), v, 4);
}

static void test_came(void **state)
{
	struct rig *r = *state;

	assert_int_equal(in(r, 0), 0);
	pci_hotplug_came(r->d, 5);
	pci_hotplug_came(r->d, 31);
	assert_int_equal(r->events, 2);
	assert_int_equal(in(r, 0), BIT(5) | BIT(31));
	assert_int_equal(in(r, 0), 0);
	assert_int_equal(in(r, 4), 0);
}

static void test_only_what_was_asked(void **state)
{
	struct rig *r = *state;

	out(r, 8, ~0u);
	assert_int_equal(r->gone, 0);
	pci_hotplug_ask(r->d, 7);
	assert_int_equal(r->events, 1);
	assert_int_equal(in(r, 4), BIT(7));
	assert_int_equal(in(r, 4), 0);
	out(r, 8, (uint32_t)~BIT(7));
	assert_int_equal(r->gone, 0);
	out(r, 8, ~0u);
	assert_int_equal(r->gone, BIT(7));
	r->gone = 0;
	out(r, 8, ~0u); /* once */
	assert_int_equal(r->gone, 0);
}

static void test_again_and_back(void **state)
{
	struct rig *r = *state;

	pci_hotplug_ask(r->d, 3);
	assert_int_equal(in(r, 4), BIT(3));
	pci_hotplug_ask(r->d, 3); /* the guest had no driver the first time */
	assert_int_equal(in(r, 4), BIT(3));
	pci_hotplug_ask(r->d, 4);
	pci_hotplug_machine_reset(r->d);
	assert_int_equal(r->gone, BIT(3) | BIT(4));
	assert_int_equal(in(r, 4), 0);
	assert_int_equal(in(r, 0), 0);
}

static void test_odd_accesses(void **state)
{
	struct rig *r = *state;

	pci_hotplug_ask(r->d, 0);
	for (unsigned at = 0; at < PCI_HOTPLUG_PORTS; at++)
		ports_out(r->ports, (uint16_t)(PCI_HOTPLUG_PORT + at), 0xff, 1);
	out(r, 0, ~0u);
	out(r, 4, ~0u);
	out(r, 12, ~0u);
	assert_int_equal(r->gone & ~1u, 0);
	assert_int_equal(in(r, 12), 0);
	assert_int_equal(in(r, 8), 0);
}

static void test_state_is_checked(void **state)
{
	struct rig *r = *state;
	uint32_t *hw = r->d->hw; /* came, go, asked, ejected */
	struct err e = { 0 };

	assert_int_equal(r->d->ops->state->check(hw, &e), 0);
	hw[3] = 1;
	assert_true(r->d->ops->state->check(hw, &e) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_came, setup, teardown),
		cmocka_unit_test_setup_teardown(test_only_what_was_asked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_again_and_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_odd_accesses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_state_is_checked, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
