"""OpenGL ES 3 without a window, through the system's libEGL and libGLESv2: as much as shaders need.

Nothing is opened before `Context()`, which raises NoOpenGL where there is no driver. Drivers want the calls
of a context from one thread at a time: `current()` makes it that of the thread.
"""

import contextlib
import ctypes
import ctypes.util
import threading

import numpy as np

_EGL_NONE = 0x3038
_EGL_SURFACELESS_MESA = 0x31DD
_EGL_OPENGL_ES_API = 0x30A0
# RENDERABLE_TYPE: ES 3; SURFACE_TYPE: pbuffer; eight bits of red, green, blue, alpha
_EGL_CONFIG = (0x3040, 0x40, 0x3033, 0x01, 0x3024, 8, 0x3023, 8, 0x3022, 8, 0x3021, 8)
_EGL_CONTEXT = (0x3098, 3)
_EGL_SURFACE = (0x3057, 16, 0x3056, 16)

VERTEX, FRAGMENT = 0x8B31, 0x8B30
_COMPILE_STATUS, _LINK_STATUS = 0x8B81, 0x8B82
_TEXTURE_2D, _TEXTURE0 = 0x0DE1, 0x84C0
_RGBA, _RGBA32F, _FLOAT = 0x1908, 0x8814, 0x1406
_RED, _RGB, _R32F, _RGB32F = 0x1903, 0x1907, 0x822E, 0x8815
_LAYOUTS = {1: (_R32F, _RED), 3: (_RGB32F, _RGB), 4: (_RGBA32F, _RGBA)}
_FRAMEBUFFER, _COLOR_ATTACHMENT0, _COMPLETE = 0x8D40, 0x8CE0, 0x8CD5
_TRIANGLES, _COLOR_BUFFER_BIT, _UNPACK_ALIGNMENT = 0x0004, 0x4000, 0x0CF5
# MIN_FILTER, MAG_FILTER: linear; WRAP_S, WRAP_T: to the edge
_SAMPLING = ((0x2801, 0x2601), (0x2800, 0x2601), (0x2802, 0x812F), (0x2803, 0x812F))

_lock = threading.RLock()


class NoOpenGL(RuntimeError):
    """There is no driver that renders."""

    def __init__(self, reason: str):
        super().__init__(
            f"Shaders need OpenGL ES 3, which this machine does not offer ({reason}). Install the driver of "
            "the GPU, or Mesa for the CPU (Debian, Ubuntu: apt install libegl1 libgles2 libegl-mesa0)."
        )


class ShaderError(ValueError):
    """A shader that the driver refuses; the text is the driver's."""


def _library(*names: str):
    for name in names:
        try:
            return ctypes.CDLL(ctypes.util.find_library(name) or f"lib{name}.so")
        except OSError:
            continue
    raise NoOpenGL(f"there is no lib{names[0]}")


def _attributes(*values: int):
    return (ctypes.c_int32 * (len(values) + 1))(*values, _EGL_NONE)


def _initialized_display(egl):
    """The first display that works: the default one, or Mesa's without a screen."""
    egl.eglGetDisplay.restype = egl.eglGetProcAddress.restype = ctypes.c_void_p
    egl.eglGetProcAddress.argtypes = [ctypes.c_char_p]
    egl.eglInitialize.argtypes = [ctypes.c_void_p] * 3
    address = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    kinds = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p]
    of_platform = ctypes.CFUNCTYPE(*kinds)(address) if address else lambda *_: None
    for platform in (None, _EGL_SURFACELESS_MESA):
        display = egl.eglGetDisplay(None) if platform is None else of_platform(platform, None, None)
        if display and egl.eglInitialize(display, None, None):
            return display
    raise NoOpenGL("no display can be opened")


class Context:
    """A context of OpenGL ES 3. `gl` has its functions."""

    def __init__(self):
        egl, self.gl = _library("EGL"), _library("GLESv2")
        display = _initialized_display(egl)
        for function in (egl.eglChooseConfig, egl.eglCreatePbufferSurface, egl.eglCreateContext):
            function.restype = ctypes.c_void_p
        config, count = ctypes.c_void_p(), ctypes.c_int32()
        pointer = ctypes.c_void_p
        egl.eglChooseConfig.restype = ctypes.c_uint
        found = egl.eglBindAPI(_EGL_OPENGL_ES_API) and egl.eglChooseConfig(
            pointer(display), _attributes(*_EGL_CONFIG), ctypes.byref(config), 1, ctypes.byref(count)
        )
        if not found or not count.value:
            raise NoOpenGL("the driver has no OpenGL ES 3")
        surface = egl.eglCreatePbufferSurface(pointer(display), config, _attributes(*_EGL_SURFACE))
        context = egl.eglCreateContext(pointer(display), config, None, _attributes(*_EGL_CONTEXT))
        if not surface or not context:
            raise NoOpenGL("the driver makes no context")
        egl.eglMakeCurrent.argtypes = [pointer] * 4
        self._make_current = egl.eglMakeCurrent
        self._handles = display, surface, context

    @contextlib.contextmanager
    def current(self):
        """Make it the context of this thread, and no other one's, for a while."""
        display, surface, context = self._handles
        with _lock:
            if not self._make_current(display, surface, surface, context):
                raise NoOpenGL("the driver does not let this thread render")
            try:
                yield self.gl
            finally:
                self._make_current(display, None, None, None)


# --- objects ----------------------------------------------------------------------------------------------


def _log(gl, thing: int, read) -> str:
    text = ctypes.create_string_buffer(4096)
    read(thing, len(text), None, text)
    return text.value.decode(errors="replace").strip()


def _shader(gl, kind: int, source: str) -> int:
    shader = gl.glCreateShader(kind)
    text = ctypes.c_char_p(source.encode())
    gl.glShaderSource(shader, 1, ctypes.byref(text), None)
    gl.glCompileShader(shader)
    state = ctypes.c_int()
    gl.glGetShaderiv(shader, _COMPILE_STATUS, ctypes.byref(state))
    if not state.value:
        reason = _log(gl, shader, gl.glGetShaderInfoLog)
        gl.glDeleteShader(shader)
        raise ShaderError(f"The shader cannot be compiled. The driver says:\n{reason}")
    return shader


def program(gl, vertex: str, fragment: str) -> int:
    """The name of a linked program. ShaderError with what the driver says."""
    made = gl.glCreateProgram()
    try:
        for kind, source in ((VERTEX, vertex), (FRAGMENT, fragment)):
            shader = _shader(gl, kind, source)
            gl.glAttachShader(made, shader)
            gl.glDeleteShader(shader)  # lives as long as the program
        gl.glLinkProgram(made)
        state = ctypes.c_int()
        gl.glGetProgramiv(made, _LINK_STATUS, ctypes.byref(state))
        if not state.value:
            reason = _log(gl, made, gl.glGetProgramInfoLog)
            raise ShaderError(f"The shader cannot be linked. The driver says:\n{reason}")
    except ShaderError:
        gl.glDeleteProgram(made)
        raise
    return made


def texture(gl, unit: int, width: int, height: int, pixels: np.ndarray | None = None) -> int:
    """The name of a texture of floats, bound to a unit; pixels (H, W, 1, 3 or 4), the lowest row first."""
    name = ctypes.c_uint()
    gl.glGenTextures(1, ctypes.byref(name))
    bind(gl, unit, name.value)
    inside, layout = _LAYOUTS[4 if pixels is None else pixels.shape[-1]]
    kept = None if pixels is None else np.ascontiguousarray(pixels, dtype=np.float32)
    data = None if kept is None else kept.ctypes.data_as(ctypes.c_void_p)
    gl.glPixelStorei(_UNPACK_ALIGNMENT, 1)
    gl.glTexImage2D(_TEXTURE_2D, 0, inside, width, height, 0, layout, _FLOAT, data)
    for what, how in _SAMPLING:
        gl.glTexParameteri(_TEXTURE_2D, what, how)
    return name.value


def bind(gl, unit: int, name: int) -> None:
    """Bind a texture to a unit."""
    gl.glActiveTexture(_TEXTURE0 + unit)
    gl.glBindTexture(_TEXTURE_2D, name)


def framebuffer(gl, textures: list[int]) -> int:
    """The name of a framebuffer that draws into textures. NoOpenGL if the driver cannot draw floats."""
    name = ctypes.c_uint()
    gl.glGenFramebuffers(1, ctypes.byref(name))
    gl.glBindFramebuffer(_FRAMEBUFFER, name.value)
    places = [_COLOR_ATTACHMENT0 + number for number in range(len(textures))]
    for place, one in zip(places, textures):
        gl.glFramebufferTexture2D(_FRAMEBUFFER, place, _TEXTURE_2D, one, 0)
    gl.glDrawBuffers(len(places), (ctypes.c_uint * len(places))(*places))
    if gl.glCheckFramebufferStatus(_FRAMEBUFFER) != _COMPLETE:
        raise NoOpenGL("the driver cannot draw into textures of floats")
    return name.value


def draw(gl, target: int, width: int, height: int) -> None:
    """Draw one triangle into a framebuffer."""
    gl.glBindFramebuffer(_FRAMEBUFFER, target)
    gl.glViewport(0, 0, width, height)
    gl.glClearColor(*(ctypes.c_float(0) for _ in range(4)))
    gl.glClear(_COLOR_BUFFER_BIT)
    gl.glDrawArrays(_TRIANGLES, 0, 3)


def read(gl, source: int, number: int, width: int, height: int) -> np.ndarray:
    """What was drawn into texture `number` of a framebuffer: (H, W, 4), the lowest row first."""
    pixels = np.empty((height, width, 4), dtype=np.float32)
    gl.glBindFramebuffer(_FRAMEBUFFER, source)
    gl.glReadBuffer(_COLOR_ATTACHMENT0 + number)
    gl.glReadPixels(0, 0, width, height, _RGBA, _FLOAT, pixels.ctypes.data_as(ctypes.c_void_p))
    return pixels


def delete(gl, *, program: int, textures: list[int], framebuffers: list[int]) -> None:
    """Give everything back."""
    gl.glDeleteProgram(program)
    for function, names in ((gl.glDeleteTextures, textures), (gl.glDeleteFramebuffers, framebuffers)):
        function(len(names), (ctypes.c_uint * len(names))(*names))
