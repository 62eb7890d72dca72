package agentpolicy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/elsewhere-net/elsewhere/internal/yamlfile"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
)

// The bounds of what is in a file.
const (
	maxItems       = 1000    // In a list.
	maxRate        = 1 << 20 // Of jobs, at once or a second.
	maxConcurrency = 1 << 16
	maxReason      = 200 // Bytes.
)

// reader collects what is wrong while it reads.
type reader struct{ yamlfile.Reader }

// Parse reads a policy; path is what errors call it. The error is a *yamlfile.Problems.
func Parse(path string, data []byte) (*Policy, error) {
	r := &reader{}
	p := &Policy{}
	if doc := r.Document(data); doc != nil {
		r.policy(doc, p)
	}
	if err := r.Err(path); err != nil {
		return nil, err
	}
	p.Budget = p.limits.budget()
	return p, nil
}

// policy reads the whole document.
func (r *reader) policy(doc *yaml.Node, p *Policy) {
	top := r.Fields(doc, "a policy", "version", "stopped", "targets", "ports", "checks", "dns", "limits")
	if top == nil {
		return
	}
	r.Version(doc, top["version"])
	p.Stopped = r.stopped(top["stopped"])
	if n := top["targets"]; n != nil {
		fields := r.Fields(n, "targets", "allow", "deny", "only")
		p.Egress.Allow = r.ranges(fields["allow"], "targets.allow")
		p.Egress.Deny = r.ranges(fields["deny"], "targets.deny")
		p.Egress.Only = r.ranges(fields["only"], "targets.only")
	}
	if n := top["ports"]; n != nil {
		fields := r.Fields(n, "ports", "allow", "deny")
		p.Egress.Ports = probe.Ports{Allow: r.ports(fields["allow"], "ports.allow"), Deny: r.ports(fields["deny"], "ports.deny")}
	}
	p.Checks = r.checks(top["checks"])
	if n := top["dns"]; n != nil {
		r.dns(r.Fields(n, "dns", "servers", "deny_types"), p)
	}
	if n := top["limits"]; n != nil {
		r.limits(r.Fields(n, "limits", "target", "total", "concurrency"), p)
	}
}

// stopped reads the kill switch: true, or in words why.
func (r *reader) stopped(n *yaml.Node) string {
	const why = "the agent's operator has stopped it"
	switch {
	case n == nil || n.ShortTag() == "!!bool" && n.Value == "false":
		return ""
	case n.ShortTag() == "!!bool" && n.Value == "true":
		return why
	case n.ShortTag() == "!!bool": // YAML 1.1 has more spellings of them than people expect.
		r.Wrong(n, "stopped is %s; it is true, false, or in quotes why", yamlfile.Shown(n))
		return ""
	}
	// In YAML 1.2 they are words; nobody means them as a reason. "yes" stops, as it says.
	if n.Style == 0 && slices.Contains([]string{"no", "off", "n"}, strings.ToLower(n.Value)) {
		r.Wrong(n, "stopped is %s; it is true, false, or in quotes why", yamlfile.Shown(n))
		return ""
	}
	reason, ok := r.Text(n, "stopped", "true")
	if ok && len(reason) > maxReason {
		r.Wrong(n, "the reason has %d bytes; at most %d", len(reason), maxReason)
	}
	return why + ": " + reason
}

// list is a list of the file: how it is called, and what an item looks like.
type list struct{ name, item string }

// each reads a list of at most maxItems words, each by read; an error of it is what is wrong with the item.
func each[T any](r *reader, n *yaml.Node, what list, read func(string) (T, error)) (items []T) {
	if n == nil {
		return nil
	}
	nodes := r.Items(n, what.name, what.item)
	if len(nodes) > maxItems {
		r.Wrong(nodes[maxItems], "%s has %d items; at most %d", what.name, len(nodes), maxItems)
		return nil
	}
	for _, item := range nodes {
		if item.Kind != yaml.ScalarNode {
			r.Wrong(item, "an item of %s is %s; it is %s", what.name, yamlfile.Shown(item), what.item)
			continue
		}
		value, err := read(item.Value)
		if err != nil {
			r.Wrong(item, "%s: %v", what.name, err)
		}
		items = append(items, value)
	}
	return items
}

// ranges reads ranges of addresses.
func (r *reader) ranges(n *yaml.Node, what string) []netip.Prefix {
	return each(r, n, list{what, "a range, such as 10.0.0.0/8"}, func(word string) (netip.Prefix, error) {
		prefix, err := probe.ParsePrefix(word)
		if err != nil {
			err = problem(word + " is no range of addresses; write it as 10.0.0.0/8 or 2001:db8::1")
		}
		return prefix, err
	})
}

// problem is an error in words.
type problem string

func (p problem) Error() string { return string(p) }

func (r *reader) ports(n *yaml.Node, what string) []probe.PortRange {
	return each(r, n, list{what, "a port or a range of them, such as 8000-8999"}, probe.ParsePortRange)
}

func (r *reader) checks(n *yaml.Node) []string {
	return each(r, n, list{"checks", "a check, such as tcp"}, func(word string) (string, error) {
		if !slices.Contains(probe.CheckNames(), word) {
			return "", problem(strconv.Quote(word) + " is no check; they are " + strings.Join(probe.CheckNames(), ", "))
		}
		return word, nil
	})
}

// dns reads what may be asked of which DNS servers.
func (r *reader) dns(fields map[string]*yaml.Node, p *Policy) {
	p.DenyTypes = each(r, fields["deny_types"], list{"dns.deny_types", "a record type, such as ANY"}, probe.RecordType)
	if n := fields["servers"]; n != nil {
		switch n.Value {
		case "own":
			p.OwnServers = true
		case "any":
		default:
			r.Wrong(n, "dns.servers is %s; it is any, or own for the agent's own resolvers alone", yamlfile.Shown(n))
		}
	}
}

// limits reads how often, and how much at once.
func (r *reader) limits(fields map[string]*yaml.Node, p *Policy) {
	l := &p.limits
	if n := fields["target"]; n != nil {
		rate := r.Fields(n, "limits.target", "burst", "per_second")
		l.burst, l.perSecond = int(r.number(rate["burst"], "burst", maxRate)), r.number(rate["per_second"], "per_second", maxRate)
	}
	if n := fields["total"]; n != nil {
		rate := r.Fields(n, "limits.total", "burst", "per_second")
		l.totalBurst, l.totalPerSecond = int(r.number(rate["burst"], "burst", maxRate)), r.number(rate["per_second"], "per_second", maxRate)
		if rate != nil && (rate["burst"] == nil || rate["per_second"] == nil) {
			r.Wrong(n, "limits.total needs both burst and per_second")
		}
	}
	p.Concurrency = int(r.number(fields["concurrency"], "concurrency", maxConcurrency))
}

// number reads a number above 0; 0 if it is not there. A burst and a concurrency are whole.
func (r *reader) number(n *yaml.Node, what string, most float64) float64 {
	if n == nil {
		return 0
	}
	v, err := strconv.ParseFloat(n.Value, 64)
	whole := what != "per_second"
	switch tag := n.ShortTag(); {
	case err != nil || tag != "!!int" && (whole || tag != "!!float"), !(v > 0 && v <= most): // NaN is neither.
		r.Wrong(n, "%s is %s; it is a number above 0, at most %.f (to measure nothing, write stopped: true)", what, yamlfile.Shown(n), most)
		return 0
	}
	return v
}
