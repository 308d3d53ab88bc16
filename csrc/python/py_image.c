#include "module.h"

#include "../image/pngio.h"
#include "../net/layout.h"

enum { MAX_TEXTS = 32 };

/* The items of a dict of str as texts that point into its strings; the dict
 * is the caller's own, which no other thread can change. */
static int
texts_from_dict(PyObject *dict, struct nd_png_text texts[MAX_TEXTS],
                size_t *n_texts)
{
    Py_ssize_t position = 0;
    PyObject *key, *value;
    *n_texts = 0;
    if (PyDict_Size(dict) > MAX_TEXTS) {
        PyErr_Format(PyExc_ValueError, "text: at most %d entries", MAX_TEXTS);
        return -1;
    }
    while (PyDict_Next(dict, &position, &key, &value)) {
        struct nd_png_text *text = &texts[*n_texts];
        Py_ssize_t key_size, value_size;
        text->key = PyUnicode_AsUTF8AndSize(key, &key_size);
        if (text->key == NULL)
            return -1;
        text->value = PyUnicode_AsUTF8AndSize(value, &value_size);
        if (text->value == NULL)
            return -1;
        bool good = key_size >= 1 && key_size <= 79 &&
                    strlen(text->value) == (size_t)value_size;
        for (Py_ssize_t i = 0; good && i < key_size; i++)
            good = text->key[i] >= '!' && text->key[i] <= '~';
        if (!good) {
            PyErr_Format(PyExc_ValueError,
                         "text: key %R is not 1 to 79 ASCII characters "
                         "without blanks, or its value holds a NUL",
                         key);
            return -1;
        }
        ++*n_texts;
    }
    return 0;
}

static PyObject *
png_write(PyObject *module, PyObject *args)
{
    PyObject *path = NULL, *object, *given, *dict = NULL, *result = NULL;
    PyArrayObject *rows = NULL;
    struct nd_png_text texts[MAX_TEXTS];
    size_t n_texts;
    struct nd_error err;
    enum nd_status status;
    if (!PyArg_ParseTuple(args, "O&OO!:png_write", PyUnicode_FSConverter,
                          &path, &object, &PyDict_Type, &given))
        return NULL;
    rows = nd_py_input(object, NPY_INT8, 2, "rows");
    dict = PyDict_Copy(given);
    if (rows == NULL || dict == NULL ||
        texts_from_dict(dict, texts, &n_texts) < 0)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    status = nd_png_write(PyBytes_AS_STRING(path), PyArray_DATA(rows),
                          (size_t)PyArray_DIM(rows, 0),
                          (size_t)PyArray_DIM(rows, 1), texts, n_texts, &err);
    Py_END_ALLOW_THREADS
    result = status == ND_OK ? Py_NewRef(Py_None)
                             : nd_py_raise(nd_py_state(module), &err);
done:
    Py_DECREF(path);
    Py_XDECREF(dict);
    Py_XDECREF(rows);
    return result;
}

static PyObject *
texts_to_dict(const struct nd_png *png)
{
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict != NULL && i < nd_png_texts(png); i++) {
        struct nd_png_text text = nd_png_text_at(png, i);
        Py_ssize_t size = (Py_ssize_t)strlen(text.value);
        PyObject *key = PyUnicode_DecodeLatin1(
            text.key, (Py_ssize_t)strlen(text.key), NULL);
        PyObject *value =
            text.utf8 ? PyUnicode_DecodeUTF8(text.value, size, "replace")
                      : PyUnicode_DecodeLatin1(text.value, size, NULL);
        if (key == NULL || value == NULL ||
            PyDict_SetItem(dict, key, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *
png_read(PyObject *module, PyObject *args)
{
    PyObject *path = NULL, *texts = NULL, *result = NULL;
    PyArrayObject *rows = NULL;
    struct nd_png *png = NULL;
    struct nd_error err;
    enum nd_status status;
    if (!PyArg_ParseTuple(args, "O&:png_read", PyUnicode_FSConverter, &path))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = nd_png_open(PyBytes_AS_STRING(path), ND_MAX_CELLS, &png, &err);
    Py_END_ALLOW_THREADS
    if (status != ND_OK)
        goto done;
    npy_intp shape[2] = {(npy_intp)nd_png_height(png),
                         (npy_intp)nd_png_width(png)};
    rows = (PyArrayObject *)PyArray_SimpleNew(2, shape, NPY_INT8);
    if (rows == NULL)
        goto done;
    Py_BEGIN_ALLOW_THREADS
    status = nd_png_read(png, PyArray_DATA(rows), &err);
    Py_END_ALLOW_THREADS
    if (status == ND_OK && (texts = texts_to_dict(png)) != NULL)
        result = PyTuple_Pack(2, (PyObject *)rows, texts);
done:
    if (status != ND_OK)
        nd_py_raise(nd_py_state(module), &err);
    nd_png_close(png);
    Py_DECREF(path);
    Py_XDECREF(rows);
    Py_XDECREF(texts);
    return result;
}

static PyObject *
libpng_version(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(args))
{
    return PyUnicode_FromString(nd_png_version());
}

PyDoc_STRVAR(libpng_version_doc,
             "libpng_version()\n--\n\n"
             "Version of the libpng that is loaded.");
PyDoc_STRVAR(png_write_doc,
             "png_write(path, rows, text, /)\n--\n\n"
             "Writes rows (P, B) as a picture: 1 red, 0 green, -1 blue.");
PyDoc_STRVAR(png_read_doc,
             "png_read(path, /)\n--\n\n"
             "Rows (P, B) of any picture, each pixel as the nearest of the\n"
             "three colours, and its text chunks.");

PyMethodDef nd_py_image_methods[] = {
    {"png_write", png_write, METH_VARARGS, png_write_doc},
    {"png_read", png_read, METH_VARARGS, png_read_doc},
    {"libpng_version", libpng_version, METH_NOARGS, libpng_version_doc},
    {NULL, NULL, 0, NULL},
};
