package bench

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/elsewhere-net/elsewhere/internal/cli"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// process is one of the programs in bin/, as `make build` makes them.
type process struct {
	cmd  *exec.Cmd
	said sync.WaitGroup // what reads its log
}

// spawn starts a program and returns when its log has the message; took is how long that was from before it was
// started.
func spawn(b *testing.B, message, program string, args ...string) (p *process, took time.Duration) {
	b.Helper()
	p = &process{cmd: exec.Command(filepath.Join("..", "bin", program), args...)} //nolint:noctx // it is ended by end
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := p.cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err, ": `make build` makes the programs")
	}
	lines := bufio.NewScanner(log)
	var all strings.Builder
	for lines.Scan() {
		if strings.Contains(lines.Text(), "msg="+message+" ") {
			took = time.Since(began)
			p.said.Go(func() { _, _ = io.Copy(io.Discard, log) }) // a full pipe would stop it
			return p, took
		}
		fmt.Fprintln(&all, lines.Text())
	}
	b.Fatalf("%s ended (%v) before it was %s:\n%s", program, p.cmd.Wait(), message, all.String())
	return nil, 0
}

// end stops it as a user would.
func (p *process) end(b *testing.B) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.said.Wait()
	if err := p.cmd.Wait(); err != nil {
		b.Error(err)
	}
}

// kill ends it at once.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	p.said.Wait()
	_ = p.cmd.Wait() // it was killed
}

// memory is what is resident, in MiB: all of it, and what is not the program's own file.
func (p *process) memory(b *testing.B) (all, own float64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	field := func(name string) (kib float64) {
		_, rest, _ := strings.Cut(string(text), name+":")
		if _, err := fmt.Sscan(rest, &kib); err != nil {
			b.Fatal(name, err)
		}
		return kib / 1024
	}
	return field("VmRSS"), field("RssAnon")
}

// site is where programs run: a directory, and the addresses that its coordinator had the first time.
type site struct {
	dir  string
	grpc string
}

// coordinator starts the coordinator of the site, with TLS.
func (s *site) coordinator(b *testing.B) (*process, time.Duration) {
	return spawn(b, "ready", "elsewhere-coordinator", "--data-dir", filepath.Join(s.dir, "c"),
		"--grpc-addr", s.grpc, "--nats-addr", "127.0.0.1:0", "--http-addr", "")
}

// agent starts an agent of the site, which enrols if it is new.
func (s *site) agent(b *testing.B, name string, args ...string) (*process, time.Duration) {
	dir := filepath.Join(s.dir, name)
	list := append([]string{"--coordinator", s.grpc, "--data-dir", dir, "--allow-target", "127.0.0.0/8"}, args...)
	if _, err := os.Stat(dir); err != nil {
		r, err := pb.NewAccessServiceClient(s.api(b)).CreateJoinToken(b.Context(),
			&pb.CreateJoinTokenRequest{Join: &pb.JoinToken{Agent: name, Vantage: &pb.Vantage{Region: "here"}}})
		if err != nil {
			b.Fatal(err)
		}
		list = append(list, "--join", r.GetSecret())
	}
	return spawn(b, "connected", "elsewhere-agent", list...)
}

// api connects as the administrator.
func (s *site) api(b *testing.B) *grpc.ClientConn {
	token, err := os.ReadFile(filepath.Join(s.dir, "c", "admin.token"))
	if err != nil {
		b.Fatal(err)
	}
	cc, err := cli.Dial(cli.Endpoint{Address: s.grpc, Token: strings.TrimSpace(string(token)), CA: filepath.Join(s.dir, "c", "ca.pem")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cc.Close() })
	return cc
}

// BenchmarkReady is the time from exec until the coordinator says that it is ready, and until an agent says that it is
// connected: with an empty directory, where keys are made and the agent enrols, and with the one from before.
func BenchmarkReady(b *testing.B) {
	quiet := quietAgent(b)
	took := map[string][]time.Duration{}
	note := func(name string, d time.Duration) { took[name] = append(took[name], d) }
	for b.Loop() {
		s := newSite(b)
		c, d := s.coordinator(b)
		note("coordinator-first", d)
		c.end(b)
		c, d = s.coordinator(b)
		note("coordinator", d)
		a, d := s.agent(b, "one", quiet...)
		note("agent-first", d)
		a.end(b)
		a, d = s.agent(b, "one", quiet...)
		note("agent", d)
		a.end(b)
		c.end(b)
	}
	b.ReportMetric(0, "ns/op")
	for name, list := range took {
		slices.Sort(list)
		b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, name+"-p50-ms")
		b.ReportMetric(float64(list[len(list)-1].Microseconds())/1000, name+"-max-ms")
	}
}
