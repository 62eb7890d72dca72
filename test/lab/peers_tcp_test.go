package lab

import (
	"context"
	"encoding/xml"
	"fmt"
	"os/exec"
	"regexp"
	"strings"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// nmapRun is what is read of nmap's XML.
type nmapRun struct {
	Hosts []struct {
		Ports []struct {
			State struct {
				State  string `xml:"state,attr"`
				Reason string `xml:"reason,attr"`
				Sender string `xml:"reason_ip,attr"`
			} `xml:"state"`
			Scripts []struct {
				ID     string `xml:"id,attr"`
				Output string `xml:"output,attr"`
			} `xml:"script"`
		} `xml:"ports>port"`
		Trace struct {
			Hops []struct {
				TTL     int    `xml:"ttl,attr"`
				Address string `xml:"ipaddr,attr"`
			} `xml:"hop"`
		} `xml:"trace"`
	} `xml:"host"`
}

// nmap scans one port of one address.
func (w *peerWorld) nmap(ctx context.Context, args ...string) (*nmapRun, error) {
	out, err := w.home.Command(ctx, append([]string{"nmap", "-Pn", "-n", "-oX", "-"}, args...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("nmap %v: %w: %s", args, err, out)
	}
	run := new(nmapRun)
	if err := xml.Unmarshal(out, run); err != nil {
		return nil, err
	}
	if len(run.Hosts) != 1 || len(run.Hosts[0].Ports) != 1 {
		return nil, fmt.Errorf("nmap %v said nothing of one port: %s", args, out)
	}
	return run, nil
}

// scanned is the state of a port by nmap, from where, and why. As root nmap reads the ICMP errors,
// which -sT cannot.
func scanned(args string) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		run, err := w.nmap(ctx, strings.Fields(args)...)
		if err != nil {
			return nil, err
		}
		s := run.Hosts[0].Ports[0].State
		return facts{"state": s.State, "reason": s.Reason, "sender": s.Sender}, nil
	}
}

// nmapReasons are nmap's words for ICMP errors, by version of IP, type and code.
func nmapReasons() map[string]string {
	return map[string]string{
		"4 3/0": "net-unreach", "4 3/1": "host-unreach", "4 3/2": "proto-unreach", "4 3/3": "port-unreach",
		"4 3/9": "net-prohibited", "4 3/10": "host-prohibited", "4 3/13": "admin-prohibited",
		"6 1/0": "no-route", "6 1/1": "admin-prohibited", "6 1/3": "host-unreach", "6 1/4": "port-unreach",
	}
}

// knocked is the same by Elsewhere's connect, unprivileged.
func knocked(r *pb.Result) (facts, error) {
	s, err := targetStep(r, pb.StepKind_STEP_KIND_TCP_CONNECT)
	if err != nil {
		return nil, err
	}
	f := facts{"state": "filtered", "reason": "", "sender": ""}
	version := "4"
	if strings.HasPrefix(s.GetAddress(), "[") {
		version = "6"
	}
	icmp := s.GetEvidence().GetIcmp()
	switch {
	case icmp != nil:
		f["reason"] = nmapReasons()[fmt.Sprintf("%s %d/%d", version, icmp.GetType(), icmp.GetCode())]
		f["sender"] = icmp.GetSender()
	case s.GetFailure() == pb.Failure_FAILURE_TCP_REFUSED:
		f["state"], f["reason"] = "closed", "reset"
	case s.GetFailure() == pb.Failure_FAILURE_TCP_TIMEOUT:
		f["reason"] = "no-response"
	default: // What a port does after it was open does not close it.
		f["state"], f["reason"] = "open", "syn-ack"
	}
	return f, nil
}

// tcpComparisons ask nmap, curl and tcptraceroute, and Elsewhere the same.
func tcpComparisons() []comparison {
	var all []comparison
	for _, q := range []struct{ name, says, host, port string }{
		{"tcp-open", "an open port", "203.0.113.100", "443"},
		{"tcp-closed", "a closed port answers with an RST", "203.0.113.100", "9"},
		{"tcp-drop", "a firewall that drops is silence", "203.0.113.100", "1001"},
		{"tcp-port-unreachable", "a firewall's port unreachable is not a closed port, and the router is named", "203.0.113.100", "1002"},
		{"tcp-admin-prohibited", "a firewall that says so", "203.0.113.100", "1003"},
		{"tcp-host-unreachable", "a router that knows no such host", "203.0.113.100", "1004"},
		{"tcp-net-unreachable", "a router that knows no such network", "203.0.113.100", "1005"},
		{"tcp-host-prohibited", "a firewall that prohibits the host", "203.0.113.100", "1006"},
		{"tcp-net-prohibited", "a firewall that prohibits the network", "203.0.113.100", "1007"},
		{"tcp-protocol-unreachable", "a firewall that knows no TCP", "203.0.113.100", "1008"},
		{"tcp-firewall-reset", "a firewall that sends an RST looks like a closed port", "203.0.113.100", "1009"},
		{"tcp-no-such-host", "an address that nobody has: the last router says so", "203.0.113.252", "443"},
		{"tcp6-open", "an open port, over IPv6", "2001:db8:113::53", "53"},
		{"tcp6-closed", "a closed port, over IPv6", "2001:db8:113::53", "9"},
		{"tcp6-drop", "silence, over IPv6", "2001:db8:113::53", "1001"},
		{"tcp6-port-unreachable", "port unreachable, over IPv6", "2001:db8:113::53", "1012"},
		{"tcp6-admin-prohibited", "prohibited, over IPv6", "2001:db8:113::53", "1013"},
		{"tcp6-address-unreachable", "address unreachable, over IPv6", "2001:db8:113::53", "1014"},
		{"tcp6-no-route", "no route, over IPv6", "2001:db8:113::53", "1015"},
	} {
		// A router that looks for a host that is not there says so after three seconds.
		scan, target := "-sS --initial-rtt-timeout 4s --max-rtt-timeout 4s --max-retries 1 -p "+q.port+" "+q.host, q.host+":"+q.port
		if strings.Contains(q.host, ":") {
			scan, target = "-6 "+scan, "["+q.host+"]:"+q.port
		}
		all = append(all, comparison{
			name: q.name, says: q.says, tool: "nmap --reason " + scan, peer: scanned(scan), ask: "tcp " + target, read: knocked,
		})
	}
	return append(all, paths()...)
}

// afterwards are ports that are open, and what comes then.
func afterwards() []comparison {
	at := func(name string) string { return (&peerWorld{sites: allSites()}).site(name).at() }
	var all []comparison
	for _, q := range []struct{ name, says, site string }{
		{"tcp-closed-after-connect", "a server that closes what it accepted", "closes"},
		{"tcp-banner", "a server that greets", "ssh"},
		{"tcp-says-nothing", "a server that waits", "silent"},
	} {
		all = append(all, comparison{
			name: q.name, says: q.says, tool: "curl telnet://" + at(q.site), peer: telnet(at(q.site)),
			ask: "tcp " + at(q.site), read: lingered,
		})
	}
	return append(all, comparison{
		// Of a connection that was reset before it looks, curl says only that it could not connect.
		name: "tcp-reset-after-connect", says: "a server that resets what it accepted", tool: "openssl s_client -connect " + at("resets"),
		peer: greetedByReset(at("resets")), ask: "tcp " + at("resets"), read: lingered,
	})
}

// greetedByReset connects with openssl, whose first read or write tells.
func greetedByReset(at string) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		out, err := w.home.Command(ctx, "openssl", "s_client", "-connect", at).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "errno=104") {
			return nil, fmt.Errorf("want a connection reset by the peer: %w: %s", err, out)
		}
		return facts{"afterwards": "reset", "banner": ""}, nil
	}
}

// telnet connects with curl and waits for a moment.
func telnet(at string) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		cmd := w.home.Command(ctx, "curl", "-sS", "--max-time", "1", "telnet://"+at)
		// The other end of a pipe that nobody writes to: at the end of its input curl would close.
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		defer stdin.Close()
		said, err := cmd.Output()
		code := 0
		if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Output returns it as it is.
			code, err = exit.ExitCode(), nil
		}
		after, known := map[int]string{0: "closed", 28: "open", 56: "reset"}[code]
		if !known {
			return nil, fmt.Errorf("curl ended with %d", code)
		}
		return facts{"afterwards": after, "banner": string(said)}, err
	}
}

// lingered is what Elsewhere saw after it was let in.
func lingered(r *pb.Result) (facts, error) {
	s, err := targetStep(r, pb.StepKind_STEP_KIND_TCP_CONNECT)
	if err != nil {
		return nil, err
	}
	after, known := map[pb.Failure]string{
		pb.Failure_FAILURE_NONE: "open", pb.Failure_FAILURE_TCP_RESET: "reset", pb.Failure_FAILURE_TCP_CLOSED_EARLY: "closed",
	}[s.GetFailure()]
	if !known {
		return nil, fmt.Errorf("%s", short(s.GetFailure()))
	}
	return facts{"afterwards": after, "banner": string(s.GetEvidence().GetBanner())}, nil
}

// paths ask where packets go, and how far.
func paths() []comparison {
	return []comparison{
		{
			name: "path-open", says: "the way to an open port, router by router",
			tool: "nmap --traceroute -p 443 203.0.113.100", peer: nmapTrace("203.0.113.100", "443"),
			ask: "tcp 203.0.113.100:443 --path", read: traced(false),
		},
		{
			name: "path-open-tcptraceroute", says: "the same by SYNs alone",
			tool: "tcptraceroute 203.0.113.100 443", peer: tcptraceroute("203.0.113.100", "443"),
			ask: "tcp 203.0.113.100:443 --path", read: traced(true),
		},
		{
			name: "path-closed", says: "the way to a closed port",
			tool: "tcptraceroute 203.0.113.100 9", peer: tcptraceroute("203.0.113.100", "9"),
			ask: "tcp 203.0.113.100:9 --path", read: traced(true),
		},
		{
			name: "path-dropped", says: "a port that the second router drops: the first one is the last that answers",
			tool: "tcptraceroute 203.0.113.100 1001", peer: tcptraceroute("203.0.113.100", "1001"),
			ask: "tcp 203.0.113.100:1001 --path", read: traced(true),
		},
		{
			name: "path-rejected", says: "a port that the second router rejects: it says so, by name",
			tool: "tcptraceroute 203.0.113.100 1003", peer: tcptraceroute("203.0.113.100", "1003"),
			ask: "tcp 203.0.113.100:1003 --path", read: traced(true),
		},
	}
}

// nmapTrace traces with nmap.
func nmapTrace(host, port string) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		run, err := w.nmap(ctx, "-sS", "--traceroute", "-p", port, host)
		if err != nil {
			return nil, err
		}
		var hops []string
		for _, h := range run.Hosts[0].Trace.Hops {
			hops = append(hops, fmt.Sprintf("%d %s", h.TTL, h.Address))
		}
		return facts{"hops": lines(hops)}, nil
	}
}

var (
	tracedHop = regexp.MustCompile(`(?m)^ ?(\d+)  (\S+)(?: \[(open|closed)\])?  [\d.]+ ms ?(!\S+)?`)
	tracedEnd = map[string]string{"open": "open", "closed": "closed"}
)

// tcptraceroute traces with tcptraceroute, three hops and no further: behind a drop all is silence.
func tcptraceroute(host, port string) func(context.Context, *peerWorld) (facts, error) {
	return func(ctx context.Context, w *peerWorld) (facts, error) {
		out, err := w.home.Output(ctx, "tcptraceroute", "-n", "-q", "1", "-w", "1", "-m", "4", host, port)
		if err != nil && !strings.Contains(out, "Destination not reached") {
			return nil, err
		}
		f := facts{"end": "silence", "rejector": ""}
		var hops []string
		for _, hop := range tracedHop.FindAllStringSubmatch(out, -1) {
			hops = append(hops, hop[1]+" "+hop[2])
			switch {
			case hop[3] != "":
				f["end"] = tracedEnd[hop[3]]
			case hop[4] != "":
				f["end"], f["rejector"] = "rejected", hop[2]
			}
		}
		f["hops"] = lines(hops)
		return f, nil
	}
}

// traced is what Elsewhere found on the way.
func traced(withEnd bool) func(*pb.Result) (facts, error) {
	return func(r *pb.Result) (facts, error) {
		s, err := targetStep(r, pb.StepKind_STEP_KIND_PATH_TRACE)
		if err != nil {
			return nil, err
		}
		p := s.GetEvidence().GetPath()
		var hops []string
		for _, h := range p.GetHops() {
			if h.GetAddress() != "" {
				hops = append(hops, fmt.Sprintf("%d %s", h.GetTtl(), h.GetAddress()))
			}
		}
		f := facts{"hops": lines(hops)}
		if !withEnd {
			return f, nil
		}
		connect, err := targetStep(r, pb.StepKind_STEP_KIND_TCP_CONNECT)
		if err != nil {
			return nil, err
		}
		f["rejector"], f["end"] = p.GetRejector(), "silence"
		switch {
		case p.GetRejector() != "":
			f["end"] = "rejected"
		case p.GetReached() && connect.GetFailure() == pb.Failure_FAILURE_NONE:
			f["end"] = "open"
		case p.GetReached():
			f["end"] = "closed"
		}
		return f, nil
	}
}
