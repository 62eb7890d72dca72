package chaos

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// impose makes a table of rules for what the core forwards.
func (w *world) impose(ctx context.Context, name string, rules ...string) error {
	return w.core.NFT(ctx, fmt.Sprintf("table inet fault_%s {\nchain forward { type filter hook forward priority 0;\n%s\n}\n}\n", name, strings.Join(rules, "\n")))
}

// untracked has the core remember no connection between agents and coordinators but of those that a table translates:
// a NAT takes no connection that is remembered already, and all are as soon as anybody's is translated.
const untracked = "table inet untracked {\nchain pre { type filter hook prerouting priority -300;\n" +
	"ip daddr " + coordinatorIPs + " meta mark != 1 notrack\nip saddr " + coordinatorIPs + " ip daddr != " + coreIP + " notrack\n}\n}\n"

// translating begins a table that translates what agents say to coordinators.
func translating(name string, agents ...*agent) string {
	var rules []string
	for _, a := range agents {
		rules = append(rules, fmt.Sprintf("ip saddr %s ip daddr %s meta mark set 1", a.ip, coordinatorIPs))
	}
	return fmt.Sprintf("table inet fault_%s {\nchain first { type filter hook prerouting priority -310;\n%s\n}\n", name, strings.Join(rules, "\n"))
}

// lift removes a table.
func (w *world) lift(ctx context.Context, name string) error {
	return w.core.NFT(ctx, "delete table inet fault_"+name+"\n")
}

var counter = regexp.MustCompile(`counter packets (\d+)`)

// counted is how many packets each counting rule of a table has matched.
func (w *world) counted(ctx context.Context, name string) (all []int, err error) {
	out, err := w.core.Output(ctx, "nft", "list", "table", "inet", "fault_"+name)
	if err != nil {
		return nil, err
	}
	for _, m := range counter.FindAllStringSubmatch(out, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// matched waits until the rules of a table have matched so many packets, all together.
func (w *world) matched(ctx context.Context, name string, least int) (total int, err error) {
	err = eventually(ctx, "packets to meet "+name, func(ctx context.Context) error {
		all, err := w.counted(ctx, name)
		total = 0
		for _, n := range all {
			total += n
		}
		if err == nil && total < least {
			err = errors.New("too few of them")
		}
		return err
	})
	return total, err
}

// between are rules for packets between an agent and the coordinators, in both directions.
func between(a *agent, then string) []string {
	return []string{
		fmt.Sprintf("ip saddr %s ip daddr %s %s", a.ip, coordinatorIPs, then),
		fmt.Sprintf("ip saddr %s ip daddr %s %s", coordinatorIPs, a.ip, then),
	}
}
