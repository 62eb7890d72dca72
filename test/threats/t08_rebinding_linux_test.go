package threats

import (
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
)

// TestT8Rebinding: a name that is public when it is looked at and private when it is connected to, redirects and CNAMEs
// into a private network: the agent's own ports see no connect.
func TestT8Rebinding(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, hostileWorld())
	var struck atomic.Int32
	for _, addr := range []string{"127.0.0.1:80", "127.0.0.1:443", "[::1]:80", "[::1]:443"} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				struck.Add(1)
				_ = conn.Close()
			}
		}()
		knock(t, addr)
	}
	for struck.Load() < 4 && t.Context().Err() == nil { // The proof that connects are seen.
	}
	var lied atomic.Int32
	resolve(t, "world", "203.0.113.1:53", func(q dns.Question, n int) []dns.RR {
		private := func() []dns.RR {
			lied.Add(1)
			switch q.Qtype {
			case dns.TypeA:
				return []dns.RR{rr(t, "%s 0 IN A 127.0.0.1", q.Name)}
			case dns.TypeAAAA:
				return []dns.RR{rr(t, "%s 0 IN AAAA ::1", q.Name), rr(t, "%s 0 IN AAAA ::ffff:127.0.0.1", q.Name)}
			}
			return nil
		}
		switch {
		case strings.HasPrefix(q.Name, "cname."):
			return append([]dns.RR{rr(t, "%s 0 IN CNAME inside.example.", q.Name)}, rr(t, "inside.example. 0 IN A 127.0.0.1"))
		case strings.HasPrefix(q.Name, "inside."), n%2 == 0:
			return private()
		case q.Qtype == dns.TypeA:
			return []dns.RR{rr(t, "%s 0 IN A 198.51.100.10", q.Name)}
		}
		return nil
	})
	var redirected atomic.Int32
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := map[string]string{
			"/1": "http://127.0.0.1/", "/2": "http://inside.example/", "/3": "https://localhost/", "/4": "http://[::1]/",
			"/5": "//127.0.0.1:80/", "/6": "http://0x7f000001/", "/7": "http://127.1/", "/8": "http://[::ffff:7f00:1]/",
		}[r.URL.Path]
		redirected.Add(1)
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	})}
	go func() { _ = web.Serve(space.Listen(t, "world", "198.51.100.10:80")) }() // it ends with its socket
	w := &world{t: t, home: "world", grpc: coordinatorAddr + ":7700", nats: coordinatorAddr + ":4222"}
	w.coordinate()
	w.agent("a", "--resolver", "203.0.113.1", "--root-server", "203.0.113.1", "--allow-target", "198.51.100.0/24", "--control", "203.0.113.1:9")
	w.online(1)
	for _, words := range []string{
		"tcp rebind.example:80", "tcp rebind.example:80 --path", "tcp rebind.example:443", "tls rebind.example", "tls cname.example", "tcp cname.example:80",
		"http http://rebind.example/", "origin http://rebind.example/", "origin http://cname.example/",
		"http http://198.51.100.10/1 --follow", "http http://198.51.100.10/2 --follow", "http http://198.51.100.10/3 --follow",
		"http http://198.51.100.10/4 --follow", "http http://198.51.100.10/5 --follow", "http http://198.51.100.10/6 --follow",
		"http http://198.51.100.10/7 --follow", "http http://198.51.100.10/8 --follow",
	} {
		m := w.measure(append(strings.Fields(words), "--timeout", "6s")...)
		if n := m.GetLedger().GetAnswered(); n != 1 {
			t.Errorf("%s: %v %v", words, m.GetLedger(), m.GetAsks())
		}
	}
	if lied.Load() < 8 || redirected.Load() < 8 {
		t.Errorf("%d lies and %d redirects: the attack did not happen", lied.Load(), redirected.Load())
	}
	if n := struck.Load(); n != 4 {
		t.Errorf("the agent's own ports saw %d connects", n-4)
	}
}
