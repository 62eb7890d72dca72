package threats

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest"
	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// site is a web server that counts who asks it.
func site(t *testing.T, addr, redirect string) (netip.AddrPort, *atomic.Int64) {
	t.Helper()
	var n atomic.Int64
	host, err := probetest.ListenHTTP(netip.AddrPortFrom(netip.MustParseAddr(addr), 0), nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		if redirect != "" {
			http.Redirect(w, r, redirect, http.StatusFound)
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	return host.Addr(), &n
}

// TestT5OptOut: somebody asks not to be measured. From when his address is in the file, nobody who asks by name or address
// gets through the coordinator's door, and agents that are led there by somebody else's redirect do not go; the file of
// before holds while the new one is nonsense; and what is taken out is looked at again.
func TestT5OptOut(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, "ip link set lo up\n")
	w := &world{t: t, grpc: "127.0.0.1:7700", nats: "127.0.0.1:4222"}
	list := filepath.Join(t.TempDir(), "opt-outs")
	put := func(text string) {
		if err := os.WriteFile(list+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(list+".new", list); err != nil {
			t.Fatal(err)
		}
	}
	put("# nobody yet\n")
	coordinator := w.coordinate("--opt-outs", list)
	control, _ := victim(t, "127.0.9.9")
	w.agent("a", "--allow-target", "127.0.0.0/8", "--resolver", "127.0.0.1:9", "--root-server", "127.0.0.1:9", "--control", control.String())
	w.online(1)
	target, arrived := site(t, "127.0.7.8", "")
	lure, lured := site(t, "127.0.8.8", fmt.Sprintf("http://%s/", target))
	said := func(words string) {
		eventually(t, words, func(context.Context) error {
			if _, text := coordinator.said(); !strings.Contains(text, words) {
				return fmt.Errorf("it says %s", text)
			}
			return nil
		})
	}
	ways := map[string][]string{"asked for itself": {"http", fmt.Sprintf("http://%s/", target)}, "by a redirect": {"http", fmt.Sprintf("http://%s/", lure), "--follow"}}
	look := func(when string, open bool) {
		for way, args := range ways {
			before, atLure := arrived.Load(), lured.Load()
			code, stdout, stderr, err := w.runAs(w.admin(), append(args, "-J")...)
			if err != nil {
				t.Fatal(err)
			}
			if went := arrived.Load() > before; went != open {
				t.Errorf("%s, %s: it was asked: %v: exit %d: %s%s", when, way, went, code, stdout, stderr)
			}
			if !open && !strings.Contains(stdout+stderr, "it is on the network's opt-out list") {
				t.Errorf("%s, %s: exit %d: %s%s", when, way, code, stdout, stderr)
			}
			if way == "by a redirect" && lured.Load() == atLure {
				t.Errorf("%s: nothing led there", when)
			}
		}
	}
	look("before", true)
	put("shop.example\n" + target.Addr().String() + " # asked us on 2026-11-20\n")
	said("entries=2")
	look("on the list", false)
	if code, _, stderr, err := w.runAs(w.admin(), "dns", "www.shop.example"); code != 4 || !strings.Contains(stderr, "www.shop.example does not want to be measured: shop.example is on") {
		t.Errorf("a name below one on the list: exit %d, %v: %s", code, err, stderr)
	}
	put("shop.example\n\n127.0.7.8/8\n")
	said(list + ":3: ")
	look("while the list is nonsense", false)
	put("shop.example\n")
	said("entries=1")
	look("taken out", true)
	m := &pb.ListMeasurementsResponse{}
	w.ask(m, "measurements", "-J")
	if got := len(m.GetMeasurements()); got != 6 {
		t.Errorf("%d measurements; what is refused at the door is none", got)
	}
}
