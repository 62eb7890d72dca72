package lab

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// impose loads the scenario's rules: one table of its name in each namespace that has some.
func (w *world) impose(ctx context.Context, s scenario) error {
	for _, place := range s.places() {
		var rules strings.Builder
		for _, f := range s.faults {
			if f.at == place {
				rules.WriteString("\t\t" + f.rule + "\n")
			}
		}
		script := fmt.Sprintf("%stable inet %s {\n\tchain %s {\n\t\ttype %s;\n%s\t}\n}\n",
			w.defines(), s.table(), place, hook(place), rules.String())
		if err := w.place(place).NFT(ctx, script); err != nil {
			return err
		}
	}
	return w.divert(ctx, "add", s)
}

// hook is where the rules of a place see packets.
func hook(place string) string {
	switch place {
	case "router", "transit":
		return "filter hook forward priority 0"
	case "middlebox":
		return "nat hook prerouting priority -100"
	}
	return "filter hook output priority 0"
}

// lift removes what impose has loaded.
func (w *world) lift(ctx context.Context, s scenario) error {
	errs := []error{w.divert(ctx, "del", s)}
	done := map[space]bool{}
	for _, place := range s.places() {
		if where := w.place(place); !done[where] { // two of them are the router's
			done[where] = true
			errs = append(errs, where.NFT(ctx, "delete table inet "+s.table()+"\n"))
		}
	}
	return errors.Join(errs...)
}

// table is the name of the scenario's nftables table. Without a prefix "drop" would be a keyword.
func (s scenario) table() string { return "ew-" + s.name }

// places are the namespaces that the scenario has rules for, each once.
func (s scenario) places() []string {
	var places []string
	for _, f := range s.faults {
		if !slices.Contains(places, f.at) {
			places = append(places, f.at)
		}
	}
	return places
}

// place is the namespace of a fault.
func (w *world) place(name string) space {
	switch name {
	case "router", "middlebox":
		return w.router
	case "transit":
		return w.transit
	}
	return w.agent(name).space
}

// defines names the subnets of the regions ($us_east) and of the agents ($us_1), and those of IPv6
// ($us_east6, $us_1_6).
func (w *world) defines() string {
	var b strings.Builder
	for r, region := range regions() {
		fmt.Fprintf(&b, "define %[1]s = 10.%[2]d.0.0/16\ndefine %[1]s6 = 2001:db8:%[2]d::/48\n", strings.ReplaceAll(region, "-", "_"), r+1)
	}
	for _, a := range w.agents {
		fmt.Fprintf(&b, "define %[1]s = %[2]s.0/24\ndefine %[1]s_6 = %[3]s::/64\n", strings.ReplaceAll(a.id, "-", "_"), a.net, a.net6)
	}
	return b.String()
}

var counter = regexp.MustCompile(`counter packets (\d+)`)

// counters reads the counters of the scenario's rules in one namespace.
func counters(ctx context.Context, where space, s scenario) ([]int, error) {
	out, err := where.Output(ctx, "nft", "list", "table", "inet", s.table())
	if err != nil {
		return nil, err
	}
	var all []int
	for _, m := range counter.FindAllStringSubmatch(out, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// packets adds up the counters of the scenario's rules in one namespace.
func (w *world) packets(ctx context.Context, where space, s scenario) (int, error) {
	all, err := counters(ctx, where, s)
	sum := 0
	for _, n := range all {
		sum += n
	}
	return sum, err
}

// counted checks that each counting rule has matched: the kernel's own word that the fault is the
// one that was meant.
func (w *world) counted(ctx context.Context, s scenario) error {
	for _, place := range s.places() {
		all, err := counters(ctx, w.place(place), s)
		if err != nil {
			return err
		}
		if slices.Contains(all, 0) {
			return fmt.Errorf("a rule at %s matched nothing: counters %v", place, all)
		}
	}
	return nil
}
