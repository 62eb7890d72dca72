package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// metadataWorld are the names and hosts that lead to a cloud's metadata service. They are part of the
// world and no scenario of the tables.
func metadataWorld() []scenario {
	issuedBy := func(url string) listener {
		return withLeaf(probetest.Leaf{Names: []string{"*." + zone}, AIA: url, Serve: probetest.LeafOnly})
	}
	return []scenario{
		{records: []string{
			"md-a A " + metadataAddr, "md-aaaa AAAA " + metadataIPv6,
			"md-both A " + metadataAddr, "md-both AAAA " + metadataIPv6,
			"md-cname CNAME md-both", "md-mapped AAAA ::ffff:" + metadataAddr, "md-nat64 AAAA 64:ff9b::a9fe:a9fe",
			"md-beside A 203.0.113.160", "md-beside A " + metadataAddr,
		}},
		{name: "md-elsewhere", hosts: []host{without("203.0.113.160")}, resolverFaults: []resolverFault{{"eu-west", metadataAddr}}},
		{name: "md-web", hosts: []host{own("203.0.113.161", plainWeb(80, redirects))}},
		{name: "md-issuer", hosts: []host{own("203.0.113.162", issuedBy("http://"+metadataAddr+"/ca.crt"))}},
		{name: "md-issuer-v6", hosts: []host{own("203.0.113.163", issuedBy("http://["+metadataIPv6+"]/ca.crt"))}},
		{name: "md-issuer-name", hosts: []host{own("203.0.113.164", issuedBy("http://md-both."+zone+"/ca.crt"))}},
		{name: "md-issuer-redirect", hosts: []host{own("203.0.113.165", issuedBy("http://md-web."+zone+"/literal"))}},
	}
}

// redirects lead to the metadata service in every spelling.
func redirects(rw http.ResponseWriter, r *http.Request, _ string) {
	to := map[string]string{
		"/literal": "http://" + metadataAddr + "/latest/meta-data/", "/v6": "http://[" + metadataIPv6 + "]/latest/",
		"/name": "http://md-both." + zone + "/", "/cname": "http://md-cname." + zone + "/", "/tls": "https://" + metadataAddr + "/",
		"/mapped": "http://[::ffff:" + metadataAddr + "]/", "/relative": "//" + metadataAddr + "/", "/twice": "/literal",
	}[r.URL.Path]
	rw.Header().Set("Location", to)
	rw.WriteHeader(http.StatusFound)
}

// waysIn are questions that lead to the metadata service, every way that there is to a socket.
func waysIn() []string {
	var ways []string
	add := func(before string, targets []string, after string) {
		for _, t := range targets {
			ways = append(ways, strings.TrimSpace(before+t+after))
		}
	}
	literals := []string{metadataAddr, "[" + metadataIPv6 + "]", "[::ffff:" + metadataAddr + "]"}
	names := []string{"md-a." + zone, "md-aaaa." + zone, "md-cname." + zone, "md-mapped." + zone, "md-nat64." + zone, "md-beside." + zone}
	add("tcp ", literals, ":80")
	add("tcp ", literals[:2], ":80 --path")
	add("tls ", literals[:2], ":80")
	add("http http://", literals[:2], "/latest/meta-data/")
	add("tcp ", names, ":80")
	add("tls ", names, ":80 --enumerate")
	add("tcp ", names[2:3], ":80 --path")
	add("http http://", names, "/latest/meta-data/")
	for _, over := range []string{"", " +tcp", " +tls", " +https", " +quic"} {
		add("dns www."+zone+" A @", []string{metadataAddr, "[" + metadataIPv6 + "]", "md-both." + zone}, over)
	}
	add("dns www."+zone+" A --public=", []string{metadataAddr, metadataIPv6}, "")
	add("dns www.", []string{leadsZone, sidewaysZone}, " A --authoritative")
	add("dns www.", []string{leadsZone, sidewaysZone}, " A +trace")
	add("http http://md-web."+zone, []string{"/literal", "/v6", "/name", "/cname", "/tls", "/mapped", "/relative", "/twice"}, " --follow")
	add("tls md-issuer", []string{"", "-v6", "-name", "-redirect"}, "."+zone)
	add("tcp md-elsewhere.", []string{zone}, ":443 from eu-west") // the zone's servers contradict the resolver
	return ways
}

// testMetadata: however a question leads to a cloud's metadata service, not a packet goes there; not even
// from agents whose operator allowed a range that holds it.
func (w *world) testMetadata(t *testing.T) {
	proved := w.provePacketsCount(t)
	var g errgroup.Group
	g.SetLimit(atOnce)
	for _, way := range waysIn() {
		g.Go(func() error {
			t.Run(way, func(t *testing.T) {
				answer := w.run(t.Context(), append(strings.Fields(way), "-J")...)
				m, err := answer.measurement()
				if err != nil {
					t.Error(err)
					return
				}
				if wrong := unrefused(m); len(wrong) > 0 {
					t.Errorf("the way was not refused: %s\n%s", strings.Join(wrong, " "), describe(m))
				}
			})
			return nil
		})
	}
	_ = g.Wait() // failures are in the subtests
	if now := w.metadataPackets(t); !slices.Equal(now, proved) {
		t.Errorf("the metadata service saw packets: %v, and %v before", now, proved)
	}
	if again := w.provePacketsCount(t); slices.Equal(again, proved) {
		t.Error("the counters do not count any more")
	}
}

// unrefused are the agents that do not say that a way leads to a metadata service: at the door, or in
// one of their steps.
func unrefused(m *pb.Measurement) []string {
	const why = "a cloud's metadata service"
	said := map[string]bool{}
	for _, a := range m.GetAsks() {
		said[a.GetAgent()] = strings.Contains(a.GetDetail(), why)
	}
	for _, r := range m.GetResults() {
		for _, s := range r.GetSteps() {
			text := s.GetEvidence().GetText() + s.GetEvidence().GetTls().GetChainAnalysis().GetIssuerUrl()
			said[r.GetAgent()] = said[r.GetAgent()] || strings.Contains(text, why)
		}
	}
	var silent []string
	for agent, ok := range said {
		if !ok {
			silent = append(silent, agent)
		}
	}
	return silent
}

// provePacketsCount asks the metadata service deliberately from every agent's namespace, by TCP and UDP
// over both families, and returns the counters, each of which has counted.
func (w *world) provePacketsCount(t *testing.T) []int {
	t.Helper()
	before := w.metadataPackets(t)
	var g errgroup.Group
	for _, a := range w.agents {
		for _, ip := range []string{metadataAddr, "[" + metadataIPv6 + "]"} {
			g.Go(func() error {
				got, err := w.curl(t.Context(), a, "http://"+ip+"/", "")
				if err == nil && got != "200" {
					err = fmt.Errorf("curl in %s: %s", a.id, got)
				}
				return err
			})
		}
		g.Go(func() error { return sendDatagrams(t.Context(), a) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	now := w.metadataPackets(t)
	for i := range now {
		if now[i] < before[i]+len(w.agents) {
			t.Fatalf("the counters of the metadata service do not count: %v, then %v", before, now)
		}
	}
	return now
}

// sendDatagrams sends one to the metadata service in each family.
func sendDatagrams(ctx context.Context, from *vantage) error {
	return from.space.Do(func() error {
		for _, ip := range []string{metadataAddr, metadataIPv6} {
			conn, err := new(net.Dialer).DialContext(ctx, "udp", net.JoinHostPort(ip, "53"))
			if err != nil {
				return err
			}
			_, err = conn.Write([]byte("anybody there?"))
			if err := errors.Join(err, conn.Close()); err != nil {
				return err
			}
		}
		return nil
	})
}

// metadataPackets are the counters: SYNs and everything that is not TCP, by family.
func (w *world) metadataPackets(t *testing.T) []int {
	t.Helper()
	all, err := counters(t.Context(), w.metadata, scenario{name: "metadata"})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
