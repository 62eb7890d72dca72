package spool

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	pb "github.com/elsewhere-net/elsewhere/proto/elsewhere/v1"
)

const (
	stateName  = "state"
	stateMagic = "ewstate\x01"
	slotBytes  = 16 << 10
	slotHead   = 4 + 8 + 8 + 8 + 8 + 1 + 1 + maxAgent + 2
	gapBytes   = 8 + 8 + 1
	maxGaps    = (slotBytes - slotHead) / gapBytes
)

// state is what a spool knows beside its segments.
type state struct {
	epoch uint64
	// doubt: numbers may have been used that nothing shows any more, so that this epoch cannot go on.
	doubt bool
	next  uint64 // no number below it is free
	gaps  []*pb.Gap
}

// stateFile keeps a state in a file of two slots that are written in place: what is there can be replaced when
// the disk is full.
type stateFile struct {
	disk       disk
	file       file
	agent      string
	generation uint64 // of the newest slot
}

// openState reads the state that counts; it is not ok if there is no file, or neither slot is as it was
// written.
func openState(d disk) (f *stateFile, st state, ok bool, err error) {
	f = &stateFile{disk: d}
	opened, err := d.open(stateName)
	if errors.Is(err, fs.ErrNotExist) {
		return f, st, false, nil
	}
	if err != nil {
		return f, st, false, fmt.Errorf("spool: %w", err)
	}
	f.file = opened
	buf := make([]byte, 2*slotBytes)
	if n, err := opened.ReadAt(buf, 0); err != nil && !errors.Is(err, io.EOF) {
		clear(buf[n:]) // what cannot be read is not as it was written
	}
	for _, slot := range [][]byte{buf[:slotBytes], buf[slotBytes:]} {
		agent, generation, read, good := decodeState(slot)
		if good && generation >= f.generation {
			f.agent, f.generation, st, ok = agent, generation, read, true
		}
	}
	return f, st, ok, nil
}

// save makes a state durable. If that fails in place, a new file is tried: one whose fsync failed is never
// believed again.
func (f *stateFile) save(st state) error {
	if f.file == nil || f.inPlace(encodeState(f.agent, f.generation+1, st)) != nil {
		return f.replace(st)
	}
	f.generation++
	return nil
}

// inPlace writes one slot and then the other, so that one is whole whenever the power goes, and both say the
// same afterwards, should one be damaged.
func (f *stateFile) inPlace(slot []byte) error {
	for i := range int64(2) {
		if _, err := f.file.WriteAt(slot, i*slotBytes); err != nil {
			return err
		}
		if err := f.file.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// replace writes a state into a new file, all of whose blocks are there from now on.
func (f *stateFile) replace(st state) error {
	image := make([]byte, 2*slotBytes)
	slot := encodeState(f.agent, f.generation+1, st)
	copy(image, slot)
	copy(image[slotBytes:], slot)
	fresh, err := writeWhole(f.disk, stateName, image)
	if err != nil {
		return err
	}
	if f.file != nil {
		_ = f.file.Close() // it has no name any more
	}
	f.file = fresh
	f.generation++
	return nil
}

// writeWhole makes a file that is there with all its content or not at all, and returns it open.
func writeWhole(d disk, name string, content []byte) (file, error) {
	const suffix = ".tmp"
	f, err := d.create(name + suffix)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if _, err = f.WriteAt(content, 0); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = d.rename(name+suffix, name)
	}
	if err == nil {
		err = d.sync()
	}
	if err != nil {
		_ = d.remove(name + suffix)
		return nil, errors.Join(fmt.Errorf("spool: %w", err), f.Close())
	}
	return f, nil
}

func encodeState(agent string, generation uint64, st state) []byte {
	buf := make([]byte, 4, slotHead+gapBytes*len(st.gaps))
	buf = append(buf, stateMagic...)
	buf = binary.LittleEndian.AppendUint64(buf, generation)
	buf = binary.LittleEndian.AppendUint64(buf, st.epoch)
	buf = binary.LittleEndian.AppendUint64(buf, st.next)
	doubt := byte(0)
	if st.doubt {
		doubt = 1
	}
	buf = append(buf, doubt, byte(len(agent)))
	buf = append(buf, agent...)
	buf = append(buf, make([]byte, maxAgent-len(agent))...)
	buf = binary.LittleEndian.AppendUint16(buf, uint16(len(st.gaps)))
	for _, g := range st.gaps {
		buf = binary.LittleEndian.AppendUint64(buf, g.GetFirst())
		buf = binary.LittleEndian.AppendUint64(buf, g.GetLast())
		buf = append(buf, byte(g.GetReason()))
	}
	binary.LittleEndian.PutUint32(buf, checksum(0, buf[4:]))
	return buf
}

func decodeState(slot []byte) (agent string, generation uint64, st state, ok bool) {
	n := int(binary.LittleEndian.Uint16(slot[slotHead-2:]))
	length := int(slot[37])
	if string(slot[4:12]) != stateMagic || n > maxGaps || length > maxAgent {
		return "", 0, st, false
	}
	used := slot[:slotHead+n*gapBytes]
	if binary.LittleEndian.Uint32(used) != checksum(0, used[4:]) {
		return "", 0, st, false
	}
	st = state{epoch: binary.LittleEndian.Uint64(used[20:]), next: binary.LittleEndian.Uint64(used[28:]), doubt: used[36] == 1}
	for g := used[slotHead:]; len(g) > 0; g = g[gapBytes:] {
		st.gaps = append(st.gaps, &pb.Gap{
			First: binary.LittleEndian.Uint64(g), Last: binary.LittleEndian.Uint64(g[8:]), Reason: pb.GapReason(g[16]),
		})
	}
	return string(used[38 : 38+length]), binary.LittleEndian.Uint64(used[12:]), st, true
}

// withGaps returns gaps and more in order, those that touch as one. Beyond maxGaps the oldest are one, with
// what is between them.
func withGaps(gaps []*pb.Gap, more ...*pb.Gap) []*pb.Gap {
	all := slices.Concat(gaps, more)
	slices.SortFunc(all, func(a, b *pb.Gap) int { return cmp.Compare(a.GetFirst(), b.GetFirst()) })
	var merged []*pb.Gap
	for _, g := range all {
		n := len(merged)
		if n > 0 && g.GetFirst() <= merged[n-1].GetLast()+1 && g.GetReason() == merged[n-1].GetReason() {
			merged[n-1] = &pb.Gap{First: merged[n-1].GetFirst(), Last: max(merged[n-1].GetLast(), g.GetLast()), Reason: g.GetReason()}
			continue
		}
		merged = append(merged, g)
	}
	if excess := len(merged) - maxGaps; excess > 0 {
		one := &pb.Gap{First: merged[0].GetFirst(), Last: merged[excess].GetLast(), Reason: merged[0].GetReason()}
		merged = append([]*pb.Gap{one}, merged[excess+1:]...)
	}
	return merged
}

// withoutGaps returns gaps without the numbers first to last.
func withoutGaps(gaps []*pb.Gap, first, last uint64) (rest []*pb.Gap) {
	for _, g := range gaps {
		if g.GetFirst() < first {
			rest = append(rest, &pb.Gap{First: g.GetFirst(), Last: min(g.GetLast(), first-1), Reason: g.GetReason()})
		}
		if g.GetLast() > last {
			rest = append(rest, &pb.Gap{First: max(g.GetFirst(), last+1), Last: g.GetLast(), Reason: g.GetReason()})
		}
	}
	return rest
}
