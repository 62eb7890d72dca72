package threats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/elsewhere-net/elsewhere/pkg/probe/probetest/space"
)

// debugPages are where Go programs and NATS servers tell of themselves, if nobody stops them.
var debugPages = []string{
	"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine?debug=2", "/debug/pprof/cmdline", "/debug/vars", "/debug/requests", "/debug/events",
	"/varz", "/connz", "/connz?auth=true", "/jsz", "/subsz", "/routez", "/gatewayz", "/leafz", "/accountz", "/stacksz", "/raftz", "/",
}

// TestT17PortScan: of all TCP ports of a coordinator that listens everywhere three answer, those that it was told, and of
// an agent none; there is no UDP; and no page tells what is inside, nor a metric who was measured or by whom.
func TestT17PortScan(t *testing.T) {
	programs(t)
	if !space.Own(t) {
		return
	}
	space.Build(t, hostileWorld()+lines( // each closed UDP port is to say so, however many are asked
		"echo 0 > /proc/sys/net/ipv4/icmp_ratelimit", "ip netns exec world sh -c 'echo 0 > /proc/sys/net/ipv4/icmp_ratelimit'",
	))
	w := &world{t: t, home: "world", grpc: coordinatorAddr + ":7700", nats: "0.0.0.0:7702", data: t.TempDir()}
	coordinator := start(t, "world", "elsewhere-coordinator", "--data-dir", w.data, "--grpc-addr", "0.0.0.0:7700", "--nats-addr", w.nats, "--http-addr", "0.0.0.0:7701", "--advertise", coordinatorAddr)
	eventually(t, "the coordinator", func(context.Context) error {
		_, err := w.cli("agents", "-J")
		return err
	})
	agent := w.agent("agent-of-metrics", "--city", "Metropolis", "--provider", "Metro", "--resolver", "203.0.113.1", "--root-server", "203.0.113.1", "--allow-target", "198.51.100.0/24", "--control", "203.0.113.1:9")
	w.online(1)
	space.Listen(t, "world", "198.51.100.10:8443")
	if m := w.measure("tcp", "198.51.100.10:8443", "--timeout", "8s"); m.GetLedger().GetAnswered() != 1 {
		t.Fatal(m)
	}

	if open := scan(t, coordinatorAddr); !slices.Equal(open, []int{7700, 7701, 7702}) {
		t.Errorf("of the coordinator's ports these answer: %v", open)
	}
	space.Visit(t, "world", func() error {
		if open := scan(t, "203.0.113.2"); len(open) > 0 {
			t.Errorf("of the agent's ports these answer: %v", open)
		}
		return nil
	})
	for name, p := range map[string]*process{"coordinator": coordinator, "agent": agent} {
		if bound := boundUDP(t, p); len(bound) > 0 {
			t.Errorf("the %s has UDP ports: %v", name, bound)
		}
	}
	pages(t, w)
}

// scan connects to every TCP port of an address, and returns those that answer.
func scan(t *testing.T, addr string) (open []int) {
	t.Helper()
	dialer := net.Dialer{Timeout: 5 * time.Second}
	for port := 1; port <= 65535; port++ {
		conn, err := dialer.DialContext(t.Context(), "tcp", fmt.Sprintf("%s:%d", addr, port))
		switch {
		case err == nil:
			open = append(open, port)
			_ = conn.Close()
		case !errors.Is(err, syscall.ECONNREFUSED):
			t.Errorf("port %d neither answers nor refuses: %v", port, err)
			return open
		}
	}
	return open
}

// boundUDP are the UDP sockets of a process that hear from anybody.
func boundUDP(t *testing.T, p *process) (bound []string) {
	t.Helper()
	own := map[string]bool{}
	descriptors, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid))
	if err != nil || len(descriptors) == 0 {
		t.Fatal(descriptors, err)
	}
	for _, d := range descriptors {
		if to, err := os.Readlink(d); err == nil {
			own[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	for _, table := range []string{"udp", "udp6", "udplite", "raw", "raw6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.cmd.Process.Pid, table))
		if err != nil {
			continue // the kernel has none
		}
		for line := range strings.Lines(string(text)) {
			if words := strings.Fields(line); own[words[9]] && strings.HasSuffix(words[2], ":0000") {
				bound = append(bound, table+" "+words[1])
			}
		}
	}
	return bound
}

// pages asks every port for every page that should not be, and the metrics for what should not be in them.
func pages(t *testing.T, w *world) {
	t.Helper()
	metrics := get(t, "http://"+coordinatorAddr+":7701/metrics")
	if !strings.Contains(metrics, "elsewhere_") {
		t.Fatalf("there are no metrics: %s", metrics)
	}
	names := regexp.MustCompile(`(?m) \S+$`).ReplaceAllString(metrics, "") // A count may look like a port by chance.
	for _, secret := range []string{"agent-of-metrics", "Metropolis", "Metro", "198.51.100", "203.0.113", "8443", "admin", "ew" + "a1_"} {
		if strings.Contains(names, secret) {
			t.Errorf("metrics have %q", secret)
		}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	for _, base := range []string{"http://" + coordinatorAddr + ":7701", "https://" + w.grpc, "https://" + coordinatorAddr + ":7702", "http://" + w.grpc, "http://" + coordinatorAddr + ":7702"} {
		c := client
		if strings.HasPrefix(base, "http:") {
			c = &http.Client{Timeout: 10 * time.Second}
		}
		for _, page := range debugPages {
			response, err := c.Get(base + page) //nolint:noctx // it has a timeout
			if err != nil {
				continue // not so
			}
			body, _ := io.ReadAll(response.Body) // what came came
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK && len(body) > 0 {
				t.Errorf("%s%s: %.200s", base, page, body)
			}
		}
	}
}
