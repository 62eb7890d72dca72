package spool

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// FuzzScanner damages a segment: what is believed of it is what was written, in order, and nothing else.
func FuzzScanner(f *testing.F) {
	f.Add(uint(200), byte(1), uint(1000), []byte{})
	f.Add(uint(130), byte(0x80), uint(300), []byte{0})
	f.Add(uint(0), byte(0), uint(140), []byte("ewspool"))
	f.Add(uint(0), byte(0), uint(5000), bytes.Repeat([]byte{0}, 100))
	f.Fuzz(func(t *testing.T, at uint, flip byte, cut uint, more []byte) {
		d := newDraft("a", 1, 1)
		var written []record
		for i := range uint64(6) {
			r := record{kindResult, 2*i + 1, []byte(strings.Repeat("payload ", int(i*i)))}
			written = append(written, r, ack(2*i+1, 2*i+2))
			d.add(r, 0)
			d.add(ack(2*i+1, 2*i+2), 0)
		}
		image := slices.Clone(d.image)
		image[at%uint(len(image))] ^= flip
		image = append(image[:min(cut, uint(len(image)))], more...)
		_, seed, err := decodeHeader(image[:min(headerBytes, len(image))])
		if err != nil {
			return
		}
		sc := newScanner(bytes.NewReader(image), seed, int64(len(image)))
		spoils := 0
		for {
			r, what := sc.next()
			switch what {
			case spoiled:
				spoils++
				continue
			case whole:
				i := slices.IndexFunc(written, func(w record) bool { return w.kind == r.kind && w.seq == r.seq })
				if i < 0 || !bytes.Equal(written[i].payload, r.payload) {
					t.Fatalf("believed %v, which was not written, or not here", r)
				}
				written = written[i+1:]
				continue
			case torn, damaged, end:
			}
			break
		}
		if spoils > 1 && len(more) == 0 {
			t.Errorf("one byte spoilt %d records", spoils)
		}
	})
}

// FuzzGarbage scans what is no segment at all.
func FuzzGarbage(f *testing.F) {
	d := newDraft("a", 1, 1)
	d.add(record{kindResult, 1, []byte("payload")}, 0)
	d.add(ack(1, 1), 0)
	f.Add(d.image)
	f.Add(append(slices.Clone(d.image), 0xff, 0xff, 0xff, 0x7f))
	f.Fuzz(func(t *testing.T, image []byte) {
		disk := newMemoryDisk()
		name := segmentName(1, 1)
		disk.names[name] = &inode{data: image}
		disk.names[stateName] = &inode{data: image}
		s, err := openOn(disk, "a", modelLimit)
		if err != nil {
			if strings.Contains(err.Error(), "results of agent") {
				return
			}
			t.Fatal(err)
		}
		if _, _, err := s.Next(0, 10); err != nil {
			t.Fatal(err)
		}
		if err := s.SetEpoch(1 << 40); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzSpool does what it is told to, damage included: nothing is handed out that nobody appended, every number
// is stored, acknowledged, or in a gap, and what is gone shows.
func FuzzSpool(f *testing.F) {
	f.Add([]byte("aaasaaks1p"))
	f.Add([]byte("aAaAsAaAf\x00\x90kaAAAAAAAAAAAAAAAAAAAAAAAAAAAf\x01\x00a"))
	f.Add([]byte("aAsf\x00\x50\x02aAsf\x01\x10\x02aAesf\x02\x60\x02aA"))
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAkAAAAptrAAAe"))
	f.Add([]byte("rrrrrrkKf\x00\x10\x31f\x00\x10\x31"))
	f.Add([]byte("rrrrrA0Kf0010000"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		synctest.Test(t, func(t *testing.T) { obey(t, ops) })
	})
}

// obey does what the bytes say.
func obey(t *testing.T, ops []byte) {
	m := newModel(t, newMemoryDisk())
	if err := m.open(); err != nil {
		t.Fatal(err)
	}
	epoch := uint64(1)
	m.setEpoch(epoch)
	for ops = ops[:min(len(ops), 200)]; len(ops) > 0; ops = ops[1:] {
		switch ops[0] {
		case 'a', 'A':
			m.append(int(ops[0]-'A') * 100)
			m.append(int('a'-ops[0]) * 300)
		case 's':
			m.sync()
		case 'k':
			m.ack(2, 5)
		case 'K':
			m.ack(1, m.spool.NextSeq())
		case 'r', 'p', 't':
			m.again(ops[0] != 'r', ops[0] == 't')
			m.resume()
		case 'f':
			if len(ops) > 3 {
				m.flip(int(ops[1]), int(ops[2])*int(ops[3]))
				ops = ops[3:]
			}
		case 'e':
			m.setEpoch(m.spool.state.epoch + 1)
		}
		if m.spool.Epoch() == 0 {
			m.setEpoch(m.spool.state.epoch + 1)
		}
	}
	m.check(false)
}

// flip damages a byte of a file between two lives of the process.
func (m *model) flip(which, at int) {
	m.disk = m.disk.crash(false, false)
	names := slices.Sorted(maps.Keys(m.disk.names))
	name := names[which%len(names)]
	node := m.disk.names[name]
	if len(node.data) == 0 {
		return
	}
	node.data[at%len(node.data)] ^= 1 << (at % 8)
	m.hurt = true
	before := m.spool
	if err := m.open(); err != nil {
		m.fatal("%s, byte %d: %v", name, at%len(node.data), err)
	}
	m.note("flip %s, byte %d of %d: epoch %d, next %d, gaps %v", name, at%len(node.data), len(node.data), m.spool.Epoch(), m.spool.next, m.spool.state.gaps)
	v := m.view()
	if m.spool.Epoch() != 0 && m.spool.next != before.next {
		m.fatal("the next number is %d, it was %d", m.spool.next, before.next)
	}
	missing := 0
	for id := range m.kept {
		if !slices.Contains(slices.Collect(maps.Values(v.results)), id) {
			missing++
		}
	}
	if missing > len(v.gaps) && (m.spool.Epoch() != 0 || len(v.gaps) == 0) {
		m.fatal("%d results are missing, %d numbers are in gaps, epoch %d", missing, len(v.gaps), m.spool.Epoch())
	}
	m.resume()
}

// resume takes what is there for what must be: what is gone was seen to be gone. What was acknowledged once may
// come, where the acknowledgement is damaged, and go again, where the same bit flips back.
func (m *model) resume() {
	m.kept = map[string]bool{}
	acked := map[uint64]bool{}
	v := m.view()
	for n := uint64(1); n < m.spool.NextSeq(); n++ {
		switch id := v.results[n]; {
		case id != "":
			if m.number[n] = id; !m.done[id] {
				m.kept[id] = false
			}
		case v.gaps[n] == 0:
			acked[n] = true
		}
	}
	m.acked = map[uint64]map[uint64]bool{m.spool.state.epoch: acked}
}
