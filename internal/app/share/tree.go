package share

import (
	"encoding/binary"

	"lukechampine.com/blake3/guts"
)

// hash is BLAKE3's: of a whole, or the chaining value of a piece of it.
type hash [32]byte

const (
	// minPiece is the smallest size of a piece: what a killed process loses of each
	// stream. A piece is a whole subtree of BLAKE3's tree, so that its chaining value
	// proves it, and those of all pieces make the hash of the file.
	minPiece = 256 << 10
	// maxPiece bounds what a stream holds in memory.
	maxPiece = 4 << 20
	// manyPieces is how many there may be before they grow.
	manyPieces = 1 << 14
	// maxSize is that of a file: 16 TiB.
	maxSize = 1 << 44
)

// pieceSize is the size of the pieces of a file of that size.
func pieceSize(size int64) int64 {
	p := int64(minPiece)
	for p < maxPiece && size > p*manyPieces {
		p *= 2
	}
	return p
}

// pieces is how many pieces a file of that size has; an empty one has an empty one.
func pieces(size int64) int {
	p := pieceSize(size)
	return int(max(1, (size+p-1)/p))
}

// pieceLen is the length of piece n of a file of that size.
func pieceLen(size int64, n int) int {
	p := pieceSize(size)
	return int(min(p, size-int64(n)*p))
}

const window = guts.MaxSIMD * guts.ChunkSize

// node is the root of the subtree over b, which begins at that chunk of the file.
func node(b []byte, chunk uint64) guts.Node {
	if len(b) > window {
		// The left side has as many chunks as a power of two can be (BLAKE3, section 2.1).
		half := window
		for half*2 < len(b) {
			half *= 2
		}
		left, right := node(b[:half], chunk), node(b[half:], chunk+uint64(half/guts.ChunkSize))
		return guts.ParentNode(guts.ChainingValue(left), guts.ChainingValue(right), &guts.IV, 0)
	}
	if cap(b) >= window {
		return guts.CompressBuffer((*[window]byte)(b[:window]), len(b), &guts.IV, chunk, 0)
	}
	var all [window]byte
	copy(all[:], b)
	return guts.CompressBuffer(&all, len(b), &guts.IV, chunk, 0)
}

// chaining is the chaining value of a piece that begins at offset, and is not all.
func chaining(b []byte, offset int64) hash {
	return bytesOf(guts.ChainingValue(node(b, uint64(offset)/guts.ChunkSize)))
}

// whole is the hash of b alone.
func whole(b []byte) hash { return rootOf(node(b, 0)) }

// pieceHash is what proves a piece: its chaining value, or, where it is all there is,
// the hash itself.
func pieceHash(b []byte, size int64, n int) hash {
	if pieces(size) == 1 {
		return whole(b)
	}
	return chaining(b, int64(n)*pieceSize(size))
}

// merger makes the hash of a whole of the chaining values of its pieces, two or more,
// of equal size but for the last.
type merger struct {
	stack []hash
	n     uint64
}

func (m *merger) add(h hash) {
	// What n pieces before have in whole subtrees is merged when another follows.
	for t := m.n; t > 0 && t&1 == 0; t >>= 1 {
		k := len(m.stack)
		m.stack = append(m.stack[:k-2], bytesOf(guts.ChainingValue(parent(m.stack[k-2], m.stack[k-1]))))
	}
	m.stack = append(m.stack, h)
	m.n++
}

// root is the hash of all that was added.
func (m *merger) root() hash {
	k := len(m.stack)
	right := m.stack[k-1]
	for i := k - 2; i > 0; i-- {
		right = bytesOf(guts.ChainingValue(parent(m.stack[i], right)))
	}
	return rootOf(parent(m.stack[0], right))
}

// merged is the hash of a file with those pieces.
func merged(of []hash) hash {
	if len(of) == 1 {
		return of[0]
	}
	var m merger
	for _, h := range of {
		m.add(h)
	}
	return m.root()
}

func parent(left, right hash) guts.Node {
	return guts.ParentNode(wordsOf(left), wordsOf(right), &guts.IV, 0)
}

func rootOf(n guts.Node) hash {
	n.Flags |= guts.FlagRoot
	b := guts.WordsToBytes(guts.CompressNode(n))
	return hash(b[:32])
}

func bytesOf(cv [8]uint32) (h hash) {
	for i, w := range cv {
		binary.LittleEndian.PutUint32(h[4*i:], w)
	}
	return h
}

func wordsOf(h hash) (cv [8]uint32) {
	for i := range cv {
		cv[i] = binary.LittleEndian.Uint32(h[4*i:])
	}
	return cv
}
