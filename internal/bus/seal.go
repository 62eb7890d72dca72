package bus

import (
	"encoding/binary"
	"hash/crc32"
)

// A message of the log is a LogBatch and its seal: the CRC-32C of the batch, 4 bytes in little endian. JetStream's
// checksum leaves out the lengths of a message's subject and of its header, so that it does not say where the content
// begins.
const sealBytes = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sealed is a batch as it stands in the log. It may be in what data has room for.
func sealed(data []byte) []byte {
	return binary.LittleEndian.AppendUint32(data, crc32.Checksum(data, castagnoli))
}

// unsealed is the batch in a message; it is not ok if it is not as it was written.
func unsealed(message []byte) (data []byte, ok bool) {
	end := len(message) - sealBytes
	if end < 0 {
		return nil, false
	}
	data = message[:end:end]
	return data, binary.LittleEndian.Uint32(message[end:]) == crc32.Checksum(data, castagnoli)
}
