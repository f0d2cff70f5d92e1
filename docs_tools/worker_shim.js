// The site's search runs in a worker, which browsers do not start for pages that are opened from
// the disk. There a hidden frame runs the worker's script instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inside = frame.contentWindow
      this.inside.postMessage = data => this.answer(data)
      this.started = new Promise(started => {
        const script = frame.contentDocument.createElement("script")
        script.src = url
        script.onload = started
        frame.contentDocument.body.append(script)
      })
    }

    answer(data) {
      const event = new MessageEvent("message", { data: structuredClone(data) })
      this.dispatchEvent(event)
      if (this.onmessage) this.onmessage(event)
    }

    postMessage(data) {
      const event = new MessageEvent("message", { data: structuredClone(data) })
      this.started.then(() => this.inside.dispatchEvent(event))
    }

    terminate() {
      this.inside.frameElement.remove()
    }
  }
}
