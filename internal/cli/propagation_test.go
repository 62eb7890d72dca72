package cli_test

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	"github.com/elsewhere-net/elsewhere/internal/network"
	"github.com/elsewhere-net/elsewhere/pkg/probe"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// The little internet whose records change.
const (
	changingRoot, changingTLD, changingFirst, changingSecond = "127.83.0.1", "127.83.0.2", "127.83.0.3", "127.83.0.4"
	oldData, newData                                         = "203.0.113.7", "203.0.113.10"
)

// changing is a real network of two agents, and a zone that changes: its two servers, the agents' resolvers,
// and two public ones, one of them for one region alone.
type changing struct {
	world
	t         *testing.T
	tree      *probetest.Tree
	resolvers map[string]*probetest.DNSServer
}

// zoneOf is the zone with some data for www.
func zoneOf(serial int, data ...string) []string {
	zone := []string{
		fmt.Sprintf("zone.tld. 300 IN SOA ns1.zone.tld. admin.zone.tld. %d 1 1 1 60", serial),
		"zone.tld. 300 IN NS ns1.zone.tld.", "zone.tld. 300 IN NS ns2.zone.tld.",
		"ns1.zone.tld. 300 IN A " + changingFirst, "ns2.zone.tld. 300 IN A " + changingSecond,
		`txt.zone.tld. 300 IN TXT "v=spf1 mx " "-all"`, "alias.zone.tld. 300 IN CNAME www.zone.tld.",
	}
	for _, d := range data {
		zone = append(zone, "www.zone.tld. 300 IN A "+d)
	}
	return zone
}

// newChanging starts all of it, with the old data.
func newChanging(t *testing.T) *changing {
	t.Helper()
	servers := records()
	c := &changing{t: t, resolvers: map[string]*probetest.DNSServer{}}
	for from, to := range map[string]string{rootServer: changingRoot, tldServer: changingTLD} {
		moved := map[string][]string{}
		for apex, all := range servers[from].Zones {
			for _, record := range all {
				moved[apex] = append(moved[apex], strings.ReplaceAll(record, "127.79.0.", "127.83.0."))
			}
		}
		servers[to] = probetest.Nameserver{Zones: moved}
	}
	for _, ip := range []string{rootServer, tldServer, firstServer, secondServer} {
		delete(servers, ip)
	}
	for _, ip := range []string{changingFirst, changingSecond} {
		servers[ip] = probetest.Nameserver{Zones: map[string][]string{"zone.tld.": zoneOf(1, oldData)}}
	}
	c.tree = closing(t, must[*probetest.Tree](t)(probetest.ServeTree(servers)))
	for i, name := range []string{"eu", "us", "World DNS", "America DNS"} {
		control := probetest.Zone{"control.tld": {Records: []string{"control.tld. 60 IN A 127.83.0.99"}}}
		at := netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf("127.83.0.%d", 53+i)), 0)
		c.resolvers[name] = closing(t, must[*probetest.DNSServer](t)(probetest.ServeDNS(at, control, true)))
		c.serve(name, oldData, 200)
	}
	var agents []network.Agent
	for i, region := range []string{"eu-west", "us-east"} {
		agents = append(agents, network.Agent{ID: region + "-1", Vantage: &pb.Vantage{Region: region, Asn: uint32(64500 + i)}, Env: &probe.Env{
			Resolvers: []netip.AddrPort{c.resolvers[region[:2]].Addr()}, Hints: []netip.AddrPort{c.tree.At(changingRoot)}, Controls: []string{"control.tld:443"},
			Egress: probe.Egress{Allow: []netip.Prefix{netip.MustParsePrefix("127.83.0.0/16"), netip.MustParsePrefix("203.0.113.0/24")}},
		}})
	}
	n := must[*network.Network](t)(network.Start(t.Context(), network.Options{Dir: t.TempDir(), Agents: agents, PublicResolvers: []*pb.PublicResolver{
		{Name: "World DNS", Addresses: []string{c.resolvers["World DNS"].Addr().String()}},
		{Name: "America DNS", Where: "us-east", Addresses: []string{c.resolvers["America DNS"].Addr().String()}},
	}}))
	t.Cleanup(func() {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	})
	c.world = newWorld(t).in(t, n)
	return c
}

// serve makes a resolver answer with data that it keeps for so many seconds more.
func (c *changing) serve(resolver, data string, ttl int) {
	c.resolvers[resolver].Set("www.zone.tld", probetest.Name{Records: []string{fmt.Sprintf("www.zone.tld. %d IN A %s", ttl, data)}})
}

// change puts the new data on one of the zone's own servers.
func (c *changing) change(server string) {
	if err := c.tree.Set(server, "zone.tld.", zoneOf(2, newData)); err != nil {
		c.t.Fatal(err)
	}
}

// says runs a command line and compares its exit code and some of what it prints.
func (c *changing) says(line string, code int, words ...string) outcome {
	c.t.Helper()
	got := c.run(c.t, shellWords(line)...)
	if got.code != code {
		c.t.Errorf("%s: exit %d, want %d\n%s%s", line, got.code, code, got.out, got.err)
	}
	for _, want := range words {
		if !strings.Contains(got.out, want) {
			c.t.Errorf("%s: no %q in\n%s", line, want, got.out)
		}
	}
	return got
}

const asksNew = "propagation www.zone.tld A --expect " + newData

func TestPropagationBeforeDuringAndAfterAChange(t *testing.T) {
	c := newChanging(t)
	c.says(asksNew, cli.ExitFail, "0 of 5 perspectives (0 %) serve www.zone.tld A "+newData+"; waiting is not enough: 2 of the zone's own servers serve something else",
		"eu-west  ░░░░░░░░░░░░░░░░░░░░  0/2", "us-east  ░░░░░░░░░░░░░░░░░░░░  0/3", "World DNS", "America DNS", "ns1.zone.tld", "ERROR expectation_failed  eu-west, us-east")

	c.change(changingFirst)
	c.serve("eu", newData, 300)
	got := c.says(asksNew, cli.ExitFail, "1 of 5 perspectives (20 %)", "eu-west  ██████████░░░░░░░░░░  1/2", "of eu-west-1", "until ", "in 3 min ",
		"one of the zone's own servers serves something else", "✗  ns2.zone.tld", "2 different serials")
	if strings.Contains(got.out, "✗  ns1.zone.tld") {
		t.Errorf("the server that has the new data is among those that are behind:\n%s", got.out)
	}
	c.says("dns www.zone.tld --expect "+newData, cli.ExitFail, "eu-west  eu-west-1", "1 of 2 perspectives (50 %)")
	c.formats()

	c.change(changingSecond)
	c.serve("us", newData, 300)
	c.says(asksNew, cli.ExitFail, "2 of 5 perspectives (40 %)", "; the rest by ")

	c.serve("World DNS", newData, 300)
	c.serve("America DNS", newData, 300)
	c.says(asksNew, cli.ExitOK, "5 of 5 perspectives (100 %) serve", "us-east  ████████████████████  3/3", "OK · 2 asked")
	c.says("show last", cli.ExitOK, "5 of 5 perspectives (100 %)")
}

// formats holds what the formats say while 1 of 5 serves it.
func (c *changing) formats() {
	c.t.Helper()
	m := &pb.Measurement{}
	if err := protojson.Unmarshal([]byte(c.says(asksNew+" -J", cli.ExitFail).out), m); err != nil || len(m.GetPublicResolvers()) != 2 {
		c.t.Errorf("JSON: %v, %v", err, m.GetPublicResolvers())
	}
	rows, err := csv.NewReader(strings.NewReader(c.says(asksNew+" --format csv", cli.ExitFail).out)).ReadAll()
	states := map[string]int{}
	for _, r := range rows[1:] {
		states[r[1]+" "+r[5]]++
	}
	want := map[string]int{"own serving": 1, "own waiting": 1, "public waiting": 3, "authority behind": 2}
	if fmt.Sprint(states) != fmt.Sprint(want) || err != nil {
		c.t.Errorf("CSV: %v, %v, want %v", err, states, want)
	}
	c.says(asksNew+" --format junit", cli.ExitFail, `<testcase name="eu-west" classname="elsewhere.propagation"`, `failures="2"`)
}

func TestPropagationOfOtherTypes(t *testing.T) {
	c := newChanging(t)
	set := func(name string, records ...string) {
		for _, r := range c.resolvers {
			r.Set(name, probetest.Name{Records: records})
		}
	}
	set("txt.zone.tld", `txt.zone.tld. 300 IN TXT "v=spf1 mx " "-all"`)
	set("alias.zone.tld", "alias.zone.tld. 300 IN CNAME www.zone.tld.")
	set("zone.tld", "zone.tld. 300 IN NS ns1.zone.tld.", "zone.tld. 300 IN NS ns2.zone.tld.", "zone.tld. 300 IN SOA ns1.zone.tld. admin.zone.tld. 1 1 1 1 60")
	for name, tc := range map[string]struct {
		line string
		code int
		says string
	}{
		"text in pieces, asked for as a whole":  {"propagation txt.zone.tld TXT --expect 'v=spf1 mx -all'", cli.ExitOK, "5 of 5 perspectives (100 %) serve txt.zone.tld TXT 'v=spf1 mx -all'"},
		"a CNAME":                               {"propagation alias.zone.tld CNAME --expect WWW.zone.tld.", cli.ExitOK, "5 of 5"},
		"the zone's servers, several of them":   {"propagation zone.tld NS --expect ns1.zone.tld. --expect ns2.zone.tld", cli.ExitOK, "5 of 5"},
		"a name with a final dot":               {"propagation www.zone.tld. --expect " + oldData, cli.ExitOK, "5 of 5"},
		"one of two values is not enough":       {"propagation zone.tld NS --expect ns1.zone.tld --expect ns3.zone.tld", cli.ExitFail, "0 of 5"},
		"public resolvers that are named alone": {"propagation www.zone.tld --expect " + oldData + " --public " + c.resolvers["America DNS"].Addr().String(), cli.ExitOK, "4 of 4"},
		"what is not there at all":              {"propagation new.zone.tld --expect " + newData, cli.ExitFail, "dns_nxdomain"},
		"a DS record, which the parent has not": {"propagation zone.tld DS --expect '1 13 2 AA'", cli.ExitFail, "0 of 5"},
	} {
		t.Run(name, func(t *testing.T) {
			c.t = t
			c.says(tc.line, tc.code, tc.says)
		})
	}
}

func TestAWatchReachesAHundredPercent(t *testing.T) {
	c := newChanging(t)
	c.change(changingFirst)
	c.change(changingSecond)
	for _, name := range []string{"eu", "us", "World DNS"} {
		c.serve(name, newData, 300)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	read, write := io.Pipe()
	var errs strings.Builder
	done := make(chan int, 1)
	go func() {
		p := cli.Program{Version: "v0.0.0-test", Out: write, Err: &errs, Getenv: func(k string) string { return c.world[k] }}
		done <- p.Run(ctx, shellWords(asksNew+" --watch --every 5s --for 1m"))
		_ = write.Close()
	}()
	first := make([]byte, 500)
	n, err := read.Read(first)
	if err != nil || !strings.Contains(string(first[:n]), "4 of 5 perspectives (80 %)") {
		t.Errorf("%v, %q; %s", err, first[:n], &errs)
	}
	c.serve("America DNS", newData, 300) // its cache lets go
	rest, err := io.ReadAll(read)
	if code := <-done; code != cli.ExitOK || err != nil {
		t.Errorf("exit %d, %v; %s\n%s", code, err, &errs, rest)
	}
	for _, want := range []string{"us-east  ✓  " + c.resolvers["America DNS"].Addr().String() + "  America DNS  " + newData, "5 of 5 perspectives (100 %)", "OK · 2 asked"} {
		if !strings.Contains(string(rest), want) {
			t.Errorf("no %q in\n%s", want, rest)
		}
	}
}
