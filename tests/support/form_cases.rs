//! Forms in parts. One chapter parses them, the next reads them from a source.

pub const XX: &str = "multipart/form-data; boundary=XX";

pub const FORM: &[u8] = b"--XX\r\n\
    Content-Disposition: form-data; name=\"who\"\r\n\
    \r\n\
    Ada\r\n\
    --XX\r\n\
    content-disposition: Form-Data; name=\"photo\"; filename=\"me.jpg\"\r\n\
    Content-Type: image/jpeg\r\n\
    \r\n\
    \xff\xd8\r\n--X\r\n\r\n--XX--\r\n";

/// A form of one file with this data.
pub fn file_form(data: &[u8]) -> Vec<u8> {
    let head = b"--XX\r\nContent-Disposition: form-data; name=\"f\"; filename=\"n\"\r\n\r\n";
    [head, data, b"\r\n--XX--\r\n"].concat()
}

/// A form of one part with this `Content-Disposition`.
pub fn named_form(disposition: &str) -> Vec<u8> {
    format!("--XX\r\nContent-Disposition: {disposition}\r\n\r\nv\r\n--XX--\r\n").into_bytes()
}
