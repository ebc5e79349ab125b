// A clip's frames: from a sheet, decoded off the page's thread, or from a video where a sheet would be too large.

export class ClipGone extends Error {
  constructor(clip, problem) {
    super(problem);
    this.clip = clip;
  }
}

// Load a side of a pair; resolves when any of its frames can be drawn at once.
export async function loadClip(side) {
  return side.sheet === null ? loadVideo(side) : loadSheet(side);
}

const LONGEST_LOADING = 60_000; // milliseconds

async function load(side, path) {
  const response = await fetch(path, { credentials: "same-origin", signal: AbortSignal.timeout(LONGEST_LOADING) });
  if (response.status === 404 || response.status === 400) throw new ClipGone(side.clip, `status ${response.status}`);
  // Anything else may pass, as when the store is out of reach: the pair is tried again.
  if (!response.ok) throw new Error(`The clip cannot be loaded now (status ${response.status}).`);
  return response;
}

async function loadSheet(side) {
  const response = await load(side, side.sheet);
  let bitmap;
  try {
    bitmap = await createImageBitmap(await response.blob());
  } catch (error) {
    throw new ClipGone(side.clip, String(error));
  }
  return new Frames(side, (context, frame, width, height) => {
    const x = (frame % side.columns) * side.width;
    const y = Math.floor(frame / side.columns) * side.height;
    context.drawImage(bitmap, x, y, side.width, side.height, 0, 0, width, height);
  }, () => {}, () => bitmap.close());
}

async function loadVideo(side) {
  const video = document.createElement("video");
  video.muted = true;
  video.preload = "auto";
  const response = await load(side, side.video);
  const address = URL.createObjectURL(await response.blob());
  await new Promise((resolve, reject) => {
    video.onloadeddata = resolve;
    video.onerror = () => reject(new ClipGone(side.clip, "the video cannot be decoded"));
    video.src = address;
  });
  let wanted = null;
  // Seeks are answered one after the other; only the newest frame that is wanted counts.
  const seek = () => {
    if (wanted !== null && !video.seeking) video.currentTime = (wanted.frame + 0.5) / side.fps;
  };
  video.onseeked = () => {
    if (wanted === null) return;
    const { context, frame, width, height } = wanted;
    context.drawImage(video, 0, 0, width, height);
    if (Math.abs(video.currentTime - (frame + 0.5) / side.fps) > 0.25 / side.fps) seek();
    else wanted = null;
  };
  return new Frames(side, (context, frame, width, height) => {
    wanted = { context, frame, width, height };
    seek();
  }, () => (wanted = null), () => {
    wanted = null;
    video.removeAttribute("src");
    URL.revokeObjectURL(address);
  });
}

class Frames {
  // `paint` draws a frame, perhaps a moment later; `rest` gives up what is still to be drawn; `close` frees the memory.
  constructor(side, paint, rest, close) {
    this.count = side.frames;
    this.fps = side.fps;
    this.width = side.width;
    this.height = side.height;
    this.paint = paint;
    this.rest = rest;
    this.close = close;
  }

  // Draw the frame, or the last one where the clip is shorter; whether it had that frame.
  draw(canvas, frame) {
    canvas.style.setProperty("--ratio", `${this.width} / ${this.height}`);
    const scale = fitted(canvas, this.width, this.height);
    const width = Math.round(this.width * scale);
    const height = Math.round(this.height * scale);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    // Few large pixels keep their edges; a picture that is nearly as large as its place is smoothed.
    context.imageSmoothingEnabled = scale < 2;
    this.paint(context, Math.min(frame, this.count - 1), width, height);
    return frame < this.count;
  }
}

// How many of the screen's pixels a pixel of the frame fills.
function fitted(canvas, width, height) {
  const density = window.devicePixelRatio || 1;
  const across = (canvas.clientWidth * density) / width;
  const down = (canvas.clientHeight * density) / height;
  const scale = Math.min(across, down) || 1;
  return scale >= 2 ? Math.floor(scale) : Math.max(0.1, scale);
}
