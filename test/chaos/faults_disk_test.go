package chaos

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/elsewhere-net/elsewhere/internal/chaos"
	"github.com/elsewhere-net/elsewhere/test/chaos/history"
)

// diskFaults are disks that are full, and bits that flip.
func diskFaults() []fault {
	return []fault{
		{name: "F13 agent's disk full", inject: agentDiskFull},
		{name: "F14 coordinator's disk full", inject: coordinatorDiskFull},
		{name: "F16 bits flipped in the checkpoint", inject: checkpointDamaged},
		{name: "F16 bits flipped in the log", inject: logDamaged},
		{name: "F16 a backup restored", inject: logRestored},
		{name: "F16 bits flipped in a spool", inject: spoolDamaged},
	}
}

// agentDiskFull leaves the first agent no room until it could not keep a result.
func agentDiskFull(_ context.Context, w *world, _ *rand.Rand) (wound, error) {
	a := w.agents[0]
	began := time.Now()
	if err := a.disk.fill(); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			said := ""
			err := eventually(ctx, a.id+" to miss the room", func(context.Context) error {
				if err := w.lives.catchUp(); err != nil {
					return err
				}
				for _, op := range []chaos.Op{chaos.Discarded, chaos.Dropped} {
					if e, ok := w.lives.last(a.name, op); ok && e.At().After(began) {
						said = fmt.Sprintf("%s: %s", e.Op, e.Detail)
						return nil
					}
				}
				return errors.New("it keeps results all the same")
			})
			room, roomErr := a.disk.room()
			return fmt.Sprintf("%d bytes were free; %s says %q", room, a.id, said), errors.Join(err, roomErr)
		},
		heal: func(ctx context.Context) error { return a.disk.free(ctx) },
	}, nil
}

// coordinatorDiskFull leaves the coordinator no room until it says that it is not ready. When there is room
// again, it goes on, or ends by itself and is started again, as systemd would.
func coordinatorDiskFull(_ context.Context, w *world, r *rand.Rand) (wound, error) {
	c := w.anyCoordinator(r)
	if err := c.disk.fill(); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			said := ""
			err := eventually(ctx, "the coordinator to miss the room", func(ctx context.Context) error {
				if bad := w.healthy(ctx, c); bad != nil {
					said = bad.Error()
					return nil
				}
				return errors.New("it is ready all the same")
			})
			room, roomErr := c.disk.room()
			return fmt.Sprintf("%d bytes were free; the coordinator said %q", room, said), errors.Join(err, roomErr)
		},
		heal: func(ctx context.Context) error {
			if err := c.disk.free(ctx); err != nil {
				return err
			}
			return eventually(ctx, "the coordinator to come back", func(ctx context.Context) error {
				if !c.alive() {
					if err := c.start(ctx); err != nil {
						return err
					}
				}
				if err := w.healthy(ctx, c); err != nil { // it may be about to end, and have others take the write
					return err
				}
				return w.writesAt(ctx, c)
			})
		},
	}, nil
}

// flip turns one bit in each of so many bytes of a file, between two offsets.
func flip(name string, r *rand.Rand, count int, between [2]int64) error {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	for range count {
		at := between[0] + r.Int64N(between[1]-between[0])
		one := make([]byte, 1)
		if _, err := file.ReadAt(one, at); err != nil {
			return err
		}
		one[0] ^= 1 << r.IntN(8)
		if _, err := file.WriteAt(one, at); err != nil {
			return err
		}
	}
	return file.Sync()
}

// soon is within what time a coordinator has to find what is wrong with its files: some of it is not met before
// the first checkpoint is written.
const soon = 15 * time.Second

// refusesToStart starts a coordinator, which has to end by itself and to say why.
func (w *world) refusesToStart(ctx context.Context, c *coordinator) (said string, err error) {
	if err := w.bring(ctx, c); err != nil && !errors.Is(err, errEnded) {
		return "", err
	}
	_, done := c.process()
	select {
	case <-done:
	case <-time.After(soon):
		return "", errors.New("it goes on with damaged data")
	}
	lines := strings.Split(tail(c.log()), "\n")
	return lines[len(lines)-1], nil
}

// checkpointDamaged flips bits of the fold's file while the coordinator is down. It has to refuse it, and to go on
// from the log alone when that is moved away, as it says.
func checkpointDamaged(_ context.Context, w *world, r *rand.Rand) (wound, error) {
	c := w.anyCoordinator(r)
	fold := filepath.Join(c.dataDir(), "fold.db")
	if err := c.kill(); err != nil {
		return wound{}, err
	}
	info, err := os.Stat(fold)
	if err != nil {
		return wound{}, err
	}
	const flips = 200
	if err := flip(fold, r, flips, [2]int64{16 << 10, info.Size()}); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			said, err := w.refusesToStart(ctx, c)
			if err == nil && !strings.Contains(said, "fold.db") {
				err = errors.New("it does not say what to move away")
			}
			return fmt.Sprintf("%d bits of %d bytes were flipped; the coordinator said %q", flips, info.Size(), said), err
		},
		heal: func(ctx context.Context) error {
			return errors.Join(os.Rename(fold, fold+".damaged"), w.bring(ctx, c))
		},
	}, nil
}

// logDamaged flips a bit in the middle of the log while the coordinator is down. JetStream leaves out what its
// checksums do not match, and what comes after it in the last file; the coordinator knows from its checkpoint that
// there was more. It has to refuse, and goes on from what was there before.
func logDamaged(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	// The checkpoint is a second behind: it has to be beyond the damage.
	if err := errors.Join(passing(ctx, 3*time.Second), w.coordinator.kill()); err != nil {
		return wound{}, err
	}
	whole := w.coordinator.dataDir() + ".whole"
	if out, err := exec.CommandContext(ctx, "cp", "-a", w.coordinator.dataDir(), whole).CombinedOutput(); err != nil {
		return wound{}, fmt.Errorf("cp: %w: %s", err, out)
	}
	size, err := damage(w.coordinator.dataDir(), r)
	if err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			said, err := w.refusesToStart(ctx, w.coordinator)
			return fmt.Sprintf("a bit of %d bytes was flipped; the coordinator said %q", size, said), err
		},
		heal: func(ctx context.Context) error {
			err := errors.Join(os.RemoveAll(w.coordinator.dataDir()), os.Rename(whole, w.coordinator.dataDir()))
			// A copy that the disk does not have yet would be gone with the next power cut.
			return errors.Join(err, w.coordinator.disk.sync(ctx), w.bring(ctx, w.coordinator))
		},
	}, nil
}

// damage flips a bit in the middle of a log that nobody uses, and returns how many bytes the file has.
func damage(dir string, r *rand.Rand) (size int64, err error) {
	block, size, err := largestBlock(dir)
	if err != nil {
		return 0, err
	}
	return size, flip(block, r, 1, [2]int64{size / 4, size * 3 / 4})
}

// largestBlock is the largest file of messages of the log's stream.
func largestBlock(dir string) (name string, size int64, err error) {
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "LOG", "msgs", "*.blk"))
	if err != nil || len(blocks) == 0 {
		return "", 0, errors.Join(fmt.Errorf("no blocks of the log below %s", dir), err)
	}
	for _, b := range blocks {
		info, err := os.Stat(b)
		if err != nil {
			return "", 0, err
		}
		if info.Size() > size {
			name, size = b, info.Size()
		}
	}
	return name, size, nil
}

// spoolDamaged keeps an agent from delivering until its spool holds results, kills it, and flips a bit in one of
// them: it has to say which numbers it lost, and to deliver the others.
func spoolDamaged(ctx context.Context, w *world, r *rand.Rand) (wound, error) {
	a := w.anyone(r)
	began := time.Now()
	before, err := spoolSize(a)
	if err != nil {
		return wound{}, err
	}
	if err := w.impose(ctx, "nodelivery", fmt.Sprintf("ip saddr %s tcp dport 7700 counter drop", a.ip)); err != nil {
		return wound{}, err
	}
	if err := eventually(ctx, "results to gather", func(context.Context) error {
		if err := w.lives.catchUp(); err != nil {
			return err
		}
		if n := w.lives.waiting(a.program, time.Now()); n < 20 {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	}); err != nil {
		return wound{}, errors.Join(err, w.lift(ctx, "nodelivery"))
	}
	// What waits now is in the file; the last results may be torn by the kill.
	if err := errors.Join(passing(ctx, time.Second/2), a.kill(), w.lift(ctx, "nodelivery")); err != nil {
		return wound{}, err
	}
	file, between, err := grown(a, before)
	if err != nil {
		return wound{}, err
	}
	at := between[0] + r.Int64N(between[1]-between[0])
	head, err := inHead(file, at)
	if err != nil {
		return wound{}, err
	}
	if head {
		a.mu.Lock()
		a.spoiled = append(a.spoiled, history.Span{First: began, Last: time.Now()})
		a.mu.Unlock()
	}
	if err := flip(file, r, 1, [2]int64{at, at + 1}); err != nil {
		return wound{}, err
	}
	return wound{
		struck: func(ctx context.Context) (string, error) {
			if err := a.start(ctx); err != nil {
				return "", err
			}
			var lost chaos.Event
			err := eventually(ctx, a.id+" to say what it lost", func(context.Context) error {
				if err := w.lives.catchUp(); err != nil {
					return err
				}
				e, ok := w.lives.last(a.name, chaos.Dropped)
				if !ok || e.At().Before(began) {
					return errors.New("it says nothing")
				}
				lost = e
				return nil
			})
			what := "result"
			if head {
				what = "record's head, with which all after it is gone"
			}
			return fmt.Sprintf("a bit was flipped in a %s; %s gave up numbers %d to %d: %s", what, a.id, lost.First, lost.Last, lost.Detail), err
		},
	}, nil
}

// inHead tells whether a byte of a segment is in what stands before a record's payload: the next record's place is said
// there. A segment has 128 bytes before its records, and each of those 21, which begin with the payload's size.
func inHead(segment string, at int64) (bool, error) {
	const header, head = 128, 21
	data, err := os.ReadFile(segment)
	if err != nil {
		return false, err
	}
	for record := int64(header); record+head <= int64(len(data)); {
		payload := record + head
		if at < payload {
			return true, nil
		}
		record = payload + int64(binary.LittleEndian.Uint32(data[record:]))
		if at < record {
			return false, nil
		}
	}
	return false, fmt.Errorf("%s has no record at %d", segment, at)
}

// spoolSize is how large each file of a spool is.
func spoolSize(a *agent) (map[string]int64, error) {
	files, err := filepath.Glob(filepath.Join(a.data, "spool", "*.seg"))
	sizes := map[string]int64{}
	for _, f := range files {
		if info, statErr := os.Stat(f); statErr == nil {
			sizes[f] = info.Size()
		}
	}
	return sizes, err
}

// grown is what was written to a spool since: a file, and the first half of what is new in it.
func grown(a *agent, before map[string]int64) (file string, between [2]int64, err error) {
	now, err := spoolSize(a)
	if err != nil {
		return "", between, err
	}
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range now {
			if !yield(name) {
				return
			}
		}
	})
	for _, name := range slices.Backward(names) {
		if was := before[name]; now[name]-was > 1024 {
			return name, [2]int64{was + 64, was + (now[name]-was)/2}, nil
		}
	}
	return "", between, fmt.Errorf("no file of the spool has grown: %v, %v before", now, before)
}
