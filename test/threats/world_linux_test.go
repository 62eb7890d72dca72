package threats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

// patience is how long anything may take that other processes have to do.
const patience = 90 * time.Second

// programsVariable names the directory of the programs to the tests' own processes in namespaces.
const programsVariable = "ELSEWHERE_THREATS_BIN"

// built is the directory of the programs. They are built once.
var built = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv(programsVariable); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "elsewhere-threats-")
	if err != nil {
		return "", err
	}
	for name, path := range map[string]string{
		"elsewhere": "./cmd/elsewhere", "elsewhere-agent": "./cmd/agent", "elsewhere-coordinator": "./cmd/coordinator",
		"hostile-coordinator": "./test/hostile/coordinator", "hostile-agent": "./test/hostile/agent",
	} {
		cmd := exec.Command("go", "build", "-tags", "grpcnotrace", "-o", filepath.Join(dir, name), path)
		cmd.Dir = "../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building %s: %w\n%s", path, err, out)
		}
	}
	return dir, os.Setenv(programsVariable, dir)
})

func TestMain(m *testing.M) {
	mine := os.Getenv(programsVariable) == ""
	status := m.Run()
	if dir := os.Getenv(programsVariable); mine && dir != "" {
		_ = os.RemoveAll(dir) // it is in the directory for temporary files
	}
	os.Exit(status)
}

// programs is the directory of the programs.
func programs(t *testing.T) string {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// process is a program that was started. What it says is kept.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu             sync.Mutex
	stdout, stderr bytes.Buffer
}

// pipe is one of a process's outputs.
type pipe struct {
	p  *process
	to *bytes.Buffer
}

func (w pipe) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	return w.to.Write(b)
}

// start starts one of the programs, in a namespace of `ip netns` or, if that is empty, in the test's own. It ends with
// the test.
func start(t *testing.T, namespace, program string, args ...string) *process {
	t.Helper()
	words := append([]string{filepath.Join(programs(t), program)}, args...)
	if namespace != "" {
		words = append([]string{"ip", "netns", "exec", namespace}, words...)
	}
	return launch(t, words...)
}

// launch runs a command until the test ends.
func launch(t *testing.T, words ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(words[0], words[1:]...), done: make(chan struct{})}
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "CI=true", "LC_ALL=C"}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.Stdout, p.cmd.Stderr = pipe{p, &p.stdout}, pipe{p, &p.stderr}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is seen by what it said
		close(p.done)
	}()
	t.Cleanup(func() { p.stop(t) })
	return p
}

// stop ends the process, by force if it takes its time.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// alive says whether the process still runs.
func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// said is what it wrote so far.
func (p *process) said() (stdout, stderr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stdout.String(), p.stderr.String()
}

// peak is the most memory that the process had at once, in bytes.
func (p *process) peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		t.Fatalf("%s", status)
	}
	kib, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// eventually asks until there is no error. What is waited for are other processes, which cannot tell.
func eventually(t *testing.T, what string, ask func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", what, err)
		}
	}
}

// world is a network of one coordinator and its agents, of real processes, with TLS and enrolment.
type world struct {
	t *testing.T
	// home is the namespace of the coordinator; "" is the test's own. The command line runs there too.
	home string
	grpc string
	nats string
	// data is the coordinator's directory. Empty: coordinate makes one.
	data string
	// insecure runs everything in clear: it is for showing what there would be to see.
	insecure bool
}

// coordinate starts a coordinator and waits until it answers.
func (w *world) coordinate(args ...string) *process {
	w.t.Helper()
	if w.data == "" {
		w.data = w.t.TempDir()
	}
	if w.insecure {
		args = append(args, "--insecure")
	}
	p := start(w.t, w.home, "elsewhere-coordinator", append([]string{
		"--data-dir", w.data, "--grpc-addr", w.grpc, "--nats-addr", w.nats, "--http-addr", freeHTTP(w.grpc),
	}, args...)...)
	w.answers()
	return p
}

// answers waits until the coordinator does.
func (w *world) answers() {
	w.t.Helper()
	eventually(w.t, "the coordinator", func(context.Context) error {
		_, err := w.cli("agents", "-J")
		return err
	})
}

// freeHTTP is an address for metrics beside that of gRPC.
func freeHTTP(grpc string) string {
	host, port, _ := net.SplitHostPort(grpc)
	number, _ := strconv.Atoi(port)
	return net.JoinHostPort(host, strconv.Itoa(number+1000))
}

// token makes a token for an agent of this name and region to come in with.
func (w *world) token(id, region string) string {
	w.t.Helper()
	out, err := w.cli("token", "create", "--region", region, "--id", id)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// agent starts an agent in the test's own namespace, which asks nobody but those that are named.
func (w *world) agent(id string, args ...string) *process {
	w.t.Helper()
	return w.agentIn(w.t.TempDir(), id, args...)
}

// agentIn is the same with a data directory, where it may be enrolled already.
func (w *world) agentIn(dir, id string, args ...string) *process {
	w.t.Helper()
	how := []string{"--insecure", "--region", "here"}
	if !w.insecure {
		how = nil
		if _, err := os.Stat(filepath.Join(dir, "identity")); err != nil {
			how = []string{"--join", w.token(id, "here")}
		}
	}
	return start(w.t, "", "elsewhere-agent", append(append([]string{"--coordinator", w.grpc, "--data-dir", dir, "--id", id}, how...), args...)...)
}

// evil starts a hostile agent that enrols under a name, in the test's own namespace.
func (w *world) evil(id, mode string, args ...string) *process {
	w.t.Helper()
	return w.evilIn(w.t.TempDir(), id, mode, append([]string{"--join", w.token(id, "evil")}, args...)...)
}

// evilIn starts one with a data directory, where it may be enrolled already.
func (w *world) evilIn(dir, id, mode string, args ...string) *process {
	w.t.Helper()
	return start(w.t, "", "hostile-agent", append([]string{
		"--coordinator", w.grpc, "--id", id, "--mode", mode, "--data-dir", dir,
	}, args...)...)
}

// deed is what a hostile agent says that it did.
type deed struct {
	Registered, Jobs, Sent, Results, Acked, Refused, Overheard, Opened int

	Epoch  uint64
	Errors map[string]int
}

// did waits until a hostile agent ends, and returns what it says that it did.
func (p *process) did(t *testing.T) (d deed) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("%v does not end", p.cmd.Args)
	}
	stdout, stderr := p.said()
	if err := json.Unmarshal([]byte(stdout), &d); err != nil {
		t.Fatalf("%v: %v %s", p.cmd.Args, err, stderr)
	}
	return d
}

// in is the same world for a subtest.
func (w *world) in(t *testing.T) *world {
	here := *w
	here.t = t
	return &here
}

// access is what the command line needs to be let in with a token.
func (w *world) access(token string) []string {
	if w.insecure {
		return []string{"--coordinator", w.grpc, "--insecure"}
	}
	return []string{"--coordinator", w.grpc, "--token", token, "--ca", filepath.Join(w.data, "ca.pem")}
}

// admin is the administrator's token, as --token takes it.
func (w *world) admin() string { return "@" + filepath.Join(w.data, "admin.token") }

// cli runs the command line beside the coordinator and returns what it prints on stdout.
func (w *world) cli(args ...string) (string, error) { return w.cliIn(w.home, args...) }

// cliIn runs it in another namespace.
func (w *world) cliIn(namespace string, args ...string) (string, error) {
	code, stdout, stderr, err := w.elsewhere(namespace, append(args, w.access(w.admin())...))
	if err == nil && (code > 3 || code < 0 || code > 0 && stdout == "") {
		err = fmt.Errorf("elsewhere %v: exit %d: %s", args, code, stderr)
	}
	return stdout, err
}

// runAs runs it with a token of somebody else's, beside the coordinator, and returns how it ended and all that it said.
func (w *world) runAs(token string, args ...string) (code int, stdout, stderr string, err error) {
	return w.elsewhere(w.home, append(args, w.access(token)...))
}

// elsewhere runs the command line to its end.
func (w *world) elsewhere(namespace string, args []string) (code int, stdout, stderr string, err error) {
	p := start(w.t, namespace, "elsewhere", args...)
	select {
	case <-p.done:
	case <-time.After(patience):
		return 0, "", "", fmt.Errorf("elsewhere %v does not end", args)
	}
	stdout, stderr = p.said()
	return p.cmd.ProcessState.ExitCode(), stdout, stderr, nil
}

// dial connects to the coordinator's API as its administrator, from the test's own namespace.
func (w *world) dial() *grpc.ClientConn {
	w.t.Helper()
	secret, err := os.ReadFile(filepath.Join(w.data, "admin.token"))
	if err != nil {
		w.t.Fatal(err)
	}
	return w.dialAs(strings.TrimSpace(string(secret)))
}

// dialAs does so with a token; without one if it is empty.
func (w *world) dialAs(secret string) *grpc.ClientConn {
	w.t.Helper()
	ca, err := credentials.NewClientTLSFromFile(filepath.Join(w.data, "ca.pem"), "")
	if err != nil {
		w.t.Fatal(err)
	}
	opts := []grpc.DialOption{grpc.WithTransportCredentials(ca)}
	if secret != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(bearer(secret)))
	}
	cc, err := grpc.NewClient(w.grpc, opts...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// bearer is a token that goes with every call.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (bearer) RequireTransportSecurity() bool { return true }

// online waits until so many agents are there.
func (w *world) online(n int) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%d agents", n), func(context.Context) error {
		out, err := w.cli("agents", "-J")
		if err != nil {
			return err
		}
		var agents pb.ListAgentsResponse
		if err := protojson.Unmarshal([]byte(out), &agents); err != nil {
			return err
		}
		there := 0
		for _, a := range agents.GetAgents() {
			if a.GetState() == pb.AgentState_AGENT_STATE_ONLINE {
				there++
			}
		}
		if there != n {
			return fmt.Errorf("%d of %d agents are there", there, n)
		}
		return nil
	})
}

// measure asks a question by the command line and returns all that is known of it.
func (w *world) measure(args ...string) *pb.Measurement {
	w.t.Helper()
	m := &pb.Measurement{}
	w.ask(m, append(args, "-J")...)
	return m
}

// ask runs the command line and reads the document that it prints.
func (w *world) ask(m proto.Message, args ...string) {
	w.t.Helper()
	out, err := w.cli(args...)
	if err == nil {
		err = protojson.Unmarshal([]byte(out), m)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

var counter = regexp.MustCompile(`counter packets (\d+) bytes \d+ comment "([^"]+)"`)

// counters are the packets that were counted in a namespace ("" is the test's own), by the comments of the rules. They are
// read again until they stand still: the last packet may be on its way.
func counters(t *testing.T, namespace string) map[string]int {
	t.Helper()
	list := []string{"nft", "list", "ruleset"}
	if namespace != "" {
		list = append([]string{"ip", "netns", "exec", namespace}, list...)
	}
	var before string
	for {
		out, err := exec.CommandContext(t.Context(), list[0], list[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if string(out) == before {
			break
		}
		before = string(out)
	}
	counts := map[string]int{}
	for _, m := range counter.FindAllStringSubmatch(before, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		counts[m[2]] += n
	}
	return counts
}

// knock connects to an address without asking any policy. That it fails does not matter: a packet was sent.
func knock(t *testing.T, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err == nil {
		_ = conn.Close()
	}
	if errors.Is(err, syscall.ENETUNREACH) {
		t.Fatalf("%s: %v", addr, err)
	}
}

// write writes a file that its owner alone may write, and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// lines are the words of each line of a script that is not empty.
func lines(script ...string) string { return strings.Join(script, "\n") + "\n" }

// kernelAddr is an IPv4 address as /proc/net/tcp has it.
func kernelAddr(text string) string {
	a := netip.MustParseAddr(text).As4()
	return fmt.Sprintf("%02X%02X%02X%02X", a[3], a[2], a[1], a[0])
}
