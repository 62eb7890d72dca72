package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/elsewhere-net/elsewhere/internal/file"
	"github.com/elsewhere-net/elsewhere/internal/spool"
	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	// maxCrashes is how often the agent may die while a job is under way before that job is not run again.
	maxCrashes = 2
	// maxStartedBytes is the size from which on the file is written anew, with what still counts.
	maxStartedBytes = 256 << 10
	// maxSuspects bounds the jobs that are remembered for having been under way when the agent died.
	maxSuspects = 4 << 10
)

// started notes which jobs are under way in a file that outlives the process, so that a job that takes the
// agent down with it (an overflown stack, no memory) does so twice and not for ever. A line for each thing
// that happens; nothing is synced, since what dies here is the process, and not the machine.
type started struct {
	name string

	mu       sync.Mutex
	file     *os.File
	size     int64
	running  map[spool.Key]pb.StepKind
	suspects map[spool.Key]suspect
	order    []spool.Key // of suspects, the oldest first
}

// suspect is a job that was under way when the agent died.
type suspect struct {
	kind    pb.StepKind // what it was to begin with
	crashes int         // more than maxCrashes: and it has its Result
}

// openStarted reads the file, or makes one. What was under way in it is a suspect.
func openStarted(name string) (*started, error) {
	s := &started{name: name, running: map[spool.Key]pb.StepKind{}, suspects: map[spool.Key]suspect{}}
	text, err := file.Read(name, 4*maxStartedBytes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		text = nil // one that cannot be read accuses nobody
	}
	for line := range bytes.Lines(text) {
		s.read(string(line))
	}
	for key, kind := range s.running {
		s.suspect(key, suspect{kind, s.suspects[key].crashes + 1})
	}
	clear(s.running)
	return s, s.rewrite()
}

// read takes up one line; one that was torn says nothing.
func (s *started) read(line string) {
	var what rune
	var crashes int
	var kind pb.StepKind
	var key spool.Key
	if _, err := fmt.Sscanf(line, "%c %d %d %d %q\n", &what, &crashes, &kind, &key.Round, &key.Measurement); err != nil {
		return
	}
	switch what {
	case '+':
		s.running[key] = kind
	case '-':
		s.forget(key)
	case '!':
		s.suspect(key, suspect{kind, crashes})
	}
}

func line(what rune, key spool.Key, of suspect) string {
	return fmt.Sprintf("%c %d %d %d %q\n", what, of.crashes, of.kind, key.Round, key.Measurement)
}

func (s *started) suspect(key spool.Key, of suspect) {
	if _, known := s.suspects[key]; !known {
		s.order = append(s.order, key)
	}
	s.suspects[key] = of
	for ; len(s.order) > maxSuspects; s.order = s.order[1:] {
		delete(s.suspects, s.order[0])
	}
}

func (s *started) forget(key spool.Key) {
	delete(s.running, key)
	if _, known := s.suspects[key]; known {
		delete(s.suspects, key)
		s.order = slices.DeleteFunc(s.order, func(k spool.Key) bool { return k == key })
	}
}

// rewrite begins a new file with what still counts.
func (s *started) rewrite() error {
	var text bytes.Buffer
	for _, key := range s.order {
		text.WriteString(line('!', key, s.suspects[key]))
	}
	for key, kind := range s.running {
		text.WriteString(line('+', key, suspect{kind: kind}))
	}
	fresh := s.name + ".new"
	if err := os.WriteFile(fresh, text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("jobs under way: %w", err)
	}
	if err := os.Rename(fresh, s.name); err != nil {
		return fmt.Errorf("jobs under way: %w", err)
	}
	f, err := os.OpenFile(s.name, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("jobs under way: %w", err)
	}
	if s.file != nil {
		_ = s.file.Close()
	}
	s.file, s.size = f, int64(text.Len())
	return nil
}

// note writes a line. On a full disk it is lost: then a crash accuses nobody.
func (s *started) note(text string) {
	if n, err := s.file.WriteAt([]byte(text), s.size); err == nil {
		s.size += int64(n)
	}
	if s.size > maxStartedBytes {
		_ = s.rewrite()
	}
}

// begin notes that a job is under way.
func (s *started) begin(key spool.Key, kind pb.StepKind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[key] = kind
	s.note(line('+', key, suspect{kind: kind}))
}

// end notes that a job has ended without taking the agent with it.
func (s *started) end(key spool.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(key)
	s.note(line('-', key, suspect{}))
}

// quarantined are the jobs that are not run again.
func (s *started) quarantined() map[spool.Key]suspect {
	s.mu.Lock()
	defer s.mu.Unlock()
	jobs := map[spool.Key]suspect{}
	for key, of := range s.suspects {
		if of.crashes >= maxCrashes {
			jobs[key] = of
		}
	}
	return jobs
}

// answered notes that a job that is not run again has its Result.
func (s *started) answered(key spool.Key, of suspect) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of.crashes = maxCrashes + 1
	s.suspects[key] = of
	s.note(line('!', key, of))
}

func (s *started) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file.Close()
}

// firstKind is the kind of step that a job begins with, as far as it matters for saying that nothing was seen.
func firstKind(job *pb.Job) pb.StepKind {
	if job.GetSpec().GetDns() != nil {
		return pb.StepKind_STEP_KIND_DNS_QUERY
	}
	return pb.StepKind_STEP_KIND_TCP_CONNECT
}

// crashResult is the Result of a job that is not run any more.
func crashResult(kind pb.StepKind) *pb.Result {
	return &pb.Result{Steps: []*pb.Step{{
		Kind: kind, Role: pb.Role_ROLE_TARGET,
		Failure:  pb.Failure_FAILURE_AGENT_INTERNAL,
		Failures: []pb.Failure{pb.Failure_FAILURE_AGENT_INTERNAL},
		Evidence: &pb.Evidence{Text: fmt.Sprintf("agent_crash: the agent died %d times while this job was under way, and does not run it again", maxCrashes)},
	}}}
}
